"""The small products of LoRA's delta, scale * B A, of whose factors A (r, in) and B (out, r) only parts are stored.

Where whole lines are stored, only the kept columns of x and of the output's gradient are multiplied. What goes into all
columns of a result is a product with the whole factor, which has r lines: scattering a product took longer.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.ops.columns_cpu import times_factor, transposed_times
from tombola.adapters.ops.compiled import is_compiled_for
from tombola.adapters.ops.factor import Kept, spread, stored


class Masked(NamedTuple):
    """The stored numbers of both factors, what they are, the delta's scale, and the dtype to multiply in."""

    a: Float[Tensor, "*stored_a"]
    b: Float[Tensor, "*stored_b"]
    kept_a: Kept
    kept_b: Kept
    scale: float
    dtype: torch.dtype

    def whole_a(self) -> Float[Tensor, "r in"]:
        """A with its zeros."""
        return spread(self.a.to(self.dtype), self.kept_a)

    def whole_b(self) -> Float[Tensor, "out r"]:
        """scale * B with its zeros."""
        return spread(self._scaled_b(), self.kept_b)

    def through_a(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch r"]:
        """x A^T."""
        if self._in_compiled_code(x):
            flat = self._compiled_through_a(x.reshape(-1, x.shape[-1]))
            return flat.reshape(*x.shape[:-1], flat.shape[1])
        return self._through_a(_kept_columns(x, self.kept_a, self.dtype))

    def gradients(
        self, x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], needed: tuple[bool, bool]
    ) -> tuple[Float[Tensor, "t r"], Float[Tensor, "*stored_a"] | None, Float[Tensor, "*stored_b"] | None]:
        """The output's gradient times scale * B; the gradients of the stored numbers of A and B, None where not needed.

        With G = grad^T x they are scale * B^T G and scale * G A^T at what is stored.
        """
        if self._in_compiled_code(x) and is_compiled_for(grad):
            return self._compiled_gradients(x, grad, needed)
        grad = _kept_columns(grad, self.kept_b, self.dtype)
        through_b = grad @ _lines(self._scaled_b(), self.kept_b)
        for_a = for_b = None
        if any(needed):
            x = _kept_columns(x, self.kept_a, self.dtype)
        if needed[0]:
            for_a = _of_lines(through_b.t() @ x, self.kept_a).to(self.a.dtype)
        if needed[1]:
            for_b = _of_lines(grad.t() @ self._through_a(x).mul_(self.scale), self.kept_b).to(self.b.dtype)
        return through_b, for_a, for_b

    def _in_compiled_code(self, x: Float[Tensor, "*batch in"]) -> bool:
        """Whether the columns need not be gathered: lines of both factors are kept, and products are in float32."""
        in_lines = all(kept.places is not None and kept.dim is not None for kept in (self.kept_a, self.kept_b))
        return in_lines and self.dtype == self.a.dtype == torch.float32 and is_compiled_for(x)

    def _compiled_through_a(self, x: Float[Tensor, "t in"]) -> Float[Tensor, "t r"]:
        assert self.kept_a.places is not None
        return times_factor(x, self.kept_a.places, self.a.t())

    def _compiled_gradients(
        self, x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], needed: tuple[bool, bool]
    ) -> tuple[Float[Tensor, "t r"], Float[Tensor, "*stored_a"] | None, Float[Tensor, "*stored_b"] | None]:
        columns, rows = self.kept_a.places, self.kept_b.places
        assert columns is not None
        assert rows is not None
        through_b = times_factor(grad, rows, self._scaled_b())
        for_a = transposed_times(x, columns, through_b).t() if needed[0] else None
        for_b = transposed_times(grad, rows, self._compiled_through_a(x)).mul_(self.scale) if needed[1] else None
        return through_b, for_a, for_b

    def _scaled_b(self) -> Float[Tensor, "*stored_b"]:
        return (self.b * self.scale).to(self.dtype)

    def _through_a(self, x: Float[Tensor, "*batch kept"]) -> Float[Tensor, "*batch r"]:
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
