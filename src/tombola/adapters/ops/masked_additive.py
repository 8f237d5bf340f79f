"""The masked LoRA delta's own product, to be added to any base layer's output: quantised, sharded, several, dropout.

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

from tombola.adapters.ops.factor import Kept
from tombola.adapters.ops.masked_products import Masked
from tombola.adapters.ops.precision import autocast_dtype, without_autocast


@torch.compiler.disable
def masked_additive(
    x: Float[Tensor, "*batch in"],
    a: Float[Tensor, "*stored_a"],
    b: Float[Tensor, "*stored_b"],
    kept_a: Kept,
    kept_b: Kept,
    scale: float,
) -> Float[Tensor, "*batch out"]:
    """scale * x A^T B^T, in the factors' dtype or autocast's."""
    dtype = autocast_dtype(x) or a.dtype
    with without_autocast(x.device.type):
        return _Additive.apply(x, a, b, *kept_a, *kept_b, scale, dtype)


class _Additive(torch.autograd.Function):
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
        delta = Masked(a, b, Kept(places_a, shape_a, dim_a), Kept(places_b, shape_b, dim_b), scale, dtype)
        through_a, whole_b = delta.forward(x.reshape(-1, shape_a[1]))
        out = nn.functional.linear(through_a.mul_(scale), whole_b)
        return out.view(*x.shape[:-1], shape_b[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, places_a, places_b = ctx.saved_tensors
        shape_a, dim_a, shape_b, dim_b, scale, dtype = ctx.rest
        delta = Masked(a, b, Kept(places_a, shape_a, dim_a), Kept(places_b, shape_b, dim_b), scale, dtype)
        flat_x, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        needs = ctx.needs_input_grad
        with without_autocast(grad.device.type):
            through_b, whole_a, for_a, for_b = delta.backward(flat_x, flat_grad, needs[1:3])
            for_x = (through_b @ whole_a).view_as(x).to(x.dtype) if needs[0] else None
        return for_x, for_a, for_b, *[None] * 8
