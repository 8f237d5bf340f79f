"""The small products of LoRA's delta, scale * B A, of whose factors A (r, in) and B (out, r) only parts are stored.

Where whole lines are stored, only the kept columns of x and of the output's gradient are multiplied. What goes into all
columns of a result is a product with the whole factor, which has r lines: scattering a product took longer.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.ops.compiled import is_compiled_for
from tombola.adapters.ops.factor import Kept, spread, stored
from tombola.adapters.ops.masked_cpu import masked_backward, masked_forward


class Gradients(NamedTuple):
    """The output's gradient times scale * B, and A with its zeros, whose product is x's gradient; and the factors' own.

    With G = grad^T x the latter are scale * B^T G and scale * G A^T at what is stored.
    """

    through_b: Float[Tensor, "t r"]
    whole_a: Float[Tensor, "r in"]
    for_a: Float[Tensor, "*stored_a"] | None
    for_b: Float[Tensor, "*stored_b"] | None


class Masked(NamedTuple):
    """The stored numbers of both factors, what they are, the delta's scale, and the dtype to multiply in."""

    a: Float[Tensor, "*stored_a"]
    b: Float[Tensor, "*stored_b"]
    kept_a: Kept
    kept_b: Kept
    scale: float
    dtype: torch.dtype

    def forward(self, x: Float[Tensor, "t in"]) -> tuple[Float[Tensor, "t r"], Float[Tensor, "out r"]]:
        """x A^T, and B with its zeros, without the scale."""
        if self._in_compiled_code(x):
            return masked_forward(x, self)
        through_a = self._through_a(_kept_columns(x, self.kept_a, self.dtype))
        return through_a, spread(self.b.to(self.dtype), self.kept_b)

    def backward(self, x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], needed: tuple[bool, bool]) -> Gradients:
        """From the layer's input and its output's gradient; the factors' may be None where they are not needed."""
        if self._in_compiled_code(x, grad):
            return Gradients(*masked_backward(x, grad, self))
        grad = _kept_columns(grad, self.kept_b, self.dtype)
        through_b = grad @ _lines((self.b * self.scale).to(self.dtype), self.kept_b)
        for_a = for_b = None
        if any(needed):
            x = _kept_columns(x, self.kept_a, self.dtype)
        if needed[0]:
            for_a = _of_lines(through_b.t() @ x, self.kept_a).to(self.a.dtype)
        if needed[1]:
            for_b = _of_lines(grad.t() @ self._through_a(x).mul_(self.scale), self.kept_b).to(self.b.dtype)
        return Gradients(through_b, spread(self.a.to(self.dtype), self.kept_a), for_a, for_b)

    def _in_compiled_code(self, *matrices: Float[Tensor, "t columns"]) -> bool:
        """Whether the columns need not be gathered: lines of both factors are kept, and products are in float32."""
        in_lines = all(kept.places is not None and kept.dim is not None for kept in (self.kept_a, self.kept_b))
        return in_lines and self.dtype == self.a.dtype == torch.float32 and all(map(is_compiled_for, matrices))

    def _through_a(self, x: Float[Tensor, "t kept"]) -> Float[Tensor, "t r"]:
        return nn.functional.linear(x, _lines(self.a.to(self.dtype), self.kept_a))


def _kept_columns(x: Float[Tensor, "*batch columns"], kept: Kept, dtype: torch.dtype) -> Float[Tensor, "*batch kept"]:
    """The columns that meet the lines of a factor; all where single entries are stored."""
    if kept.dim is None or kept.places is None:
        return x.to(dtype)
    # In the wider of the two types: of 16-bit numbers a CPU takes columns 3 to 6 times as slowly.
    wide = x if x.itemsize > dtype.itemsize else x.to(dtype)
    return wide.index_select(-1, kept.places).to(dtype)


def _lines(values: Float[Tensor, "*stored"], kept: Kept) -> Float[Tensor, "rows columns"]:
    """The stored lines; the whole factor where single entries are stored."""
    return spread(values, kept) if kept.dim is None else values


def _of_lines(gradient: Float[Tensor, "rows columns"], kept: Kept) -> Float[Tensor, "*stored"]:
    return stored(gradient, kept) if kept.dim is None else gradient
