"""The product of LoRA's delta of which only parts of the factors are stored, to be added to any base layer's output.

    y = scale * x A^T B^T, A (r, in) and B (out, r), zero where nothing is stored

Where whole lines are stored, only the kept columns of x and of the output's gradient are multiplied. Into the output
and into the gradient of x goes the product with the whole factor, of r lines: scattering a product took longer.

Backward keeps the layer's input, which the layers that share it share, and the stored numbers: the small product x A^T
is formed again.

Precision: products are in the dtype of the stored numbers (x is widened to it, as in PEFT's LoRA) or, inside autocast,
in autocast's.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.adapters.ops.factor import Kept, spread, stored
from tombola.adapters.ops.precision import autocast_dtype, without_autocast


@torch.compiler.disable
def masked_lora(
    x: Float[Tensor, "*batch in"],
    a: Float[Tensor, "*stored_a"],
    b: Float[Tensor, "*stored_b"],
    kept_a: Kept,
    kept_b: Kept,
    scale: float,
) -> Float[Tensor, "*batch out"]:
    """Product of the delta with x, in the factors' dtype or autocast's."""
    dtype = autocast_dtype(x) or a.dtype
    with without_autocast(x.device.type):
        return _MaskedLora.apply(x, a, b, *kept_a, *kept_b, scale, dtype)


class _MaskedLora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        places_a: Tensor | None,
        shape_a: tuple[int, int],
        dim_a: int | None,
        places_b: Tensor | None,
        shape_b: tuple[int, int],
        dim_b: int | None,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, a, b, places_a, places_b)
        ctx.rest = (shape_a, dim_a, shape_b, dim_b, scale, dtype)
        kept_a, kept_b = Kept(places_a, shape_a, dim_a), Kept(places_b, shape_b, dim_b)
        small = _small_product(_kept_columns(x, kept_a, dtype), a, kept_a)
        return nn.functional.linear(small, spread((b * scale).to(dtype), kept_b))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, places_a, places_b = ctx.saved_tensors
        shape_a, dim_a, shape_b, dim_b, scale, dtype = ctx.rest
        kept_a, kept_b = Kept(places_a, shape_a, dim_a), Kept(places_b, shape_b, dim_b)
        needs = ctx.needs_input_grad
        for_x = for_a = for_b = None
        with without_autocast(grad.device.type):
            flat_grad = _kept_columns(grad.reshape(-1, grad.shape[-1]), kept_b, dtype)
            through_b = flat_grad @ _lines((b * scale).to(dtype), kept_b)
            if needs[0]:
                for_x = (through_b @ spread(a.to(dtype), kept_a)).view_as(x).to(x.dtype)
            flat_x = _kept_columns(x.reshape(-1, x.shape[-1]), kept_a, dtype)
            if needs[1]:
                for_a = _of_lines(through_b.t() @ flat_x, kept_a).to(a.dtype)
            if needs[2]:
                small = _small_product(flat_x, a, kept_a).mul_(scale)
                for_b = _of_lines(flat_grad.t() @ small, kept_b).to(b.dtype)
        return for_x, for_a, for_b, *[None] * 8


def _kept_columns(
    x: Float[Tensor, "*batch columns"], kept: Kept, dtype: torch.dtype
) -> Float[Tensor, "*batch kept_columns"]:
    """The columns that meet the lines of a factor; all where single entries are stored."""
    if kept.dim is None or kept.places is None:
        return x.to(dtype)
    # In the wider of the two types: of 16-bit numbers a CPU takes columns 3 to 6 times as slowly.
    wide = x if x.itemsize > dtype.itemsize else x.to(dtype)
    return wide.index_select(-1, kept.places).to(dtype)


def _small_product(x: Float[Tensor, "*batch kept_columns"], a: Tensor, kept: Kept) -> Float[Tensor, "*batch r"]:
    return nn.functional.linear(x, _lines(a.to(x.dtype), kept))


def _lines(values: Float[Tensor, "*stored"], kept: Kept) -> Float[Tensor, "rows columns"]:
    """The stored lines; the whole factor where single entries are stored."""
    return spread(values, kept) if kept.dim is None else values


def _of_lines(gradient: Float[Tensor, "rows columns"], kept: Kept) -> Float[Tensor, "*stored"]:
    return stored(gradient, kept) if kept.dim is None else gradient
