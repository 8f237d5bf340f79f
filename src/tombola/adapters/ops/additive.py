"""The delta's own product, to be added to any base layer's output: quantised, partitioned, several adapters, dropout.

Precision: blocks are scaled in the scores' dtype, rounded to x's, multiplied and summed in x's dtype.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from tombola.adapters.ops.gradients import adapter_gradients
from tombola.adapters.ops.precision import autocast_dtype, without_autocast
from tombola.adapters.ops.selection import Draw, draw_blocks
from tombola.adapters.ops.stripes import drawn_stripes, in_order


@torch.compiler.disable
def bola_additive(
    x: Float[Tensor, "*batch in"],
    scores: Float[Tensor, "k n m"],
    values: Float[Tensor, "k r c"],
    alpha: float,
    magnitude: str,
) -> Float[Tensor, "*batch out"]:
    """Product of the delta with x, in x's dtype (autocast's inside autocast), without a dense delta."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return _Additive.apply(x, scores, values, alpha, magnitude)
    with without_autocast(x.device.type):
        return _Additive.apply(x.to(dtype), scores, values, alpha, magnitude)


class _Additive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scores: Tensor, values: Tensor, alpha: float, magnitude: str) -> Tensor:
        draw = draw_blocks(scores, alpha, magnitude)
        ctx.save_for_backward(x, values, *draw[:5])
        ctx.rest = draw[5:]
        n, m = draw.grid
        blocks = _scaled(values, draw, x.dtype)
        from_x = drawn_stripes(x.reshape(-1, x.shape[-1]), n, draw.from_input)
        out = _added_up(torch.bmm(from_x, blocks.transpose(1, 2)), draw.from_output, m)
        return out.view(*x.shape[:-1], out.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, values, *drawn = ctx.saved_tensors
        draw = Draw(*drawn, *ctx.rest)
        flat_x, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        needs = ctx.needs_input_grad
        for_x = None
        with without_autocast(grad.device.type):
            from_grad = drawn_stripes(flat_grad, draw.grid[1], draw.from_output)
            if needs[0]:
                products = torch.bmm(from_grad, _scaled(values, draw, grad.dtype))
                for_x = _added_up(products, draw.from_input, draw.grid[0]).view_as(x)
            for_scores, for_values = adapter_gradients(flat_x, flat_grad, values, draw, needs[1:3], from_grad)
        return for_x, for_scores, for_values, None, None


def _scaled(values: Float[Tensor, "k r c"], draw: Draw, dtype: torch.dtype) -> Float[Tensor, "k r c"]:
    return (values * draw.factors[:, None, None]).to(dtype)


def _added_up(
    products: Float[Tensor, "k t width"], to: Int[Tensor, "k"], stripes: int
) -> Float[Tensor, "t stripes_times_width"]:
    """The candidates' products, each added into its stripe of the result."""
    total = products.new_zeros(stripes, *products.shape[1:])
    return in_order(total.index_add_(0, to, products))
