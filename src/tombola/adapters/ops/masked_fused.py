"""A frozen linear layer and its masked LoRA delta in one function, which adds the delta's products in place.

The sums that autograd would make of two outputs, and of two gradients of x, are accumulated by the products themselves.
For a weight that is plain, whole and frozen; not inside autocast.

Precision: as `masked_additive`, but x A^T, the output's gradient times B, and the factors are rounded to the base
layer's dtype before the products that are accumulated; the gradients of the factors are of none of these.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.adapters.ops.factor import Kept
from tombola.adapters.ops.masked_products import Masked


@torch.compiler.disable
def masked_fused(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, "out"] | None,
    a: Float[Tensor, "*stored_a"],
    b: Float[Tensor, "*stored_b"],
    kept_a: Kept,
    kept_b: Kept,
    scale: float,
) -> Float[Tensor, "*batch out"]:
    """x weight^T + bias + scale * x A^T B^T, in x's dtype; the weight gets no gradient."""
    return _Fused.apply(x, weight, bias, a, b, *kept_a, *kept_b, scale)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        places_a: Tensor | None,
        shape_a: tuple[int, int],
        dim_a: int | None,
        places_b: Tensor | None,
        shape_b: tuple[int, int],
        dim_b: int | None,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, a, b, places_a, places_b)
        ctx.rest = (shape_a, dim_a, shape_b, dim_b, scale)
        delta = Masked(a, b, Kept(places_a, shape_a, dim_a), Kept(places_b, shape_b, dim_b), scale, a.dtype)
        out = nn.functional.linear(x, weight, bias)
        through_a, whole_b = delta.forward(x.reshape(-1, shape_a[1]))
        _add_product(out.view(-1, shape_b[0]), through_a, whole_b.t(), scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, places_a, places_b = ctx.saved_tensors
        shape_a, dim_a, shape_b, dim_b, scale = ctx.rest
        delta = Masked(a, b, Kept(places_a, shape_a, dim_a), Kept(places_b, shape_b, dim_b), scale, a.dtype)
        flat_x, flat_grad = x.reshape(-1, shape_a[1]), grad.reshape(-1, shape_b[0])
        needs = ctx.needs_input_grad
        through_b, whole_a, for_a, for_b = delta.backward(flat_x, flat_grad, needs[3:5])
        for_x = None
        if needs[0]:
            for_x = flat_grad @ weight
            _add_product(for_x, through_b, whole_a, 1.0)
            for_x = for_x.view_as(x)
        for_bias = flat_grad.sum(0) if needs[2] else None
        return for_x, None, for_bias, for_a, for_b, *[None] * 7


def _add_product(
    to: Float[Tensor, "t n"], left: Float[Tensor, "t r"], right: Float[Tensor, "r n"], scale: float
) -> None:
    to.addmm_(left.to(to.dtype), right.to(to.dtype), alpha=scale)
