"""The sparse delta's own product, to be added to any base layer's output: quantised, partitioned, several adapters.

Precision: the delta is formed in the values' dtype and rounded to x's; products are in x's dtype.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.adapters.ops.precision import autocast_dtype, without_autocast
from tombola.adapters.ops.sparse_gradients import sparse_gradients
from tombola.adapters.ops.sparse_support import Support, scaled, scattered
from tombola.adapters.ops.sparse_tiles import tile_product, tile_product_back, tiles_pay


@torch.compiler.disable
def sparse_additive(
    x: Float[Tensor, "*batch in"],
    values: Float[Tensor, "u *tile"],
    gate: Float[Tensor, "1"] | None,
    support: Support,
    scale: float,
) -> Float[Tensor, "*batch out"]:
    """Product of the delta with x, in x's dtype (autocast's inside autocast); at most one dense delta at a time."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return _Additive.apply(x, values, gate, *support, scale)
    with without_autocast(x.device.type):
        return _Additive.apply(x.to(dtype), values, gate, *support, scale)


class _Additive(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,
        gate: Tensor | None,
        index: Tensor | None,
        shape: tuple[int, int],
        block: int,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, values, gate, index)
        ctx.rest = (shape, block, scale)
        support, delta = Support(index, shape, block), scaled(values, gate, scale).to(x.dtype)
        if tiles_pay(support, x.dtype):
            return tile_product(x.reshape(-1, x.shape[-1]), delta, support).view(*x.shape[:-1], shape[0])
        return nn.functional.linear(x, scattered(delta, support))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, values, gate, index = ctx.saved_tensors
        shape, block, scale = ctx.rest
        support = Support(index, shape, block)
        flat_x, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        needs = ctx.needs_input_grad
        for_x = None
        with without_autocast(grad.device.type):
            if needs[0]:
                delta = scaled(values, gate, scale).to(grad.dtype)
                if tiles_pay(support, x.dtype):
                    for_x = tile_product_back(flat_grad, delta, support).view_as(x)
                else:
                    for_x = (flat_grad @ scattered(delta, support)).view_as(x)
            for_values, for_gate = sparse_gradients(flat_x, flat_grad, values, gate, scale, support, needs[1:3])
        return for_x, for_values, for_gate, None, None, None, None
