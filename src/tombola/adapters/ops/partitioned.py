"""A low-rank delta whose rows are in two groups of different rank, by itself or with the base layer's product.

Both groups' factors are put side by side into one A (R, in) and, each row at its place, one B (out, R), both small;
R = r + r_minor. The products are LoRA's, of rank R. Backward joins them again. It keeps x, which the layers that share
it share, and r numbers for each token, as LoRA does; nothing is ever of the weight's size.

Precision: products are in the factors' dtype, float32 at least; x A^T, the output's gradient times B and the factors
are rounded to the base layer's dtype before the products that it accumulates. With a bfloat16 weight and input all
products are in bfloat16 (summed in float32 inside), as inside autocast they are in its dtype: half of the time, and
the factors' gradients are rounded to 2^-9 of themselves.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.adapters.ops.joined import Factors, Partition
from tombola.adapters.ops.partitioned_products import Products
from tombola.adapters.ops.precision import autocast_dtype, without_autocast


@torch.compiler.disable
def partitioned_lora(
    x: Float[Tensor, "*batch in"],
    factors: Factors,
    partition: Partition,
    weight: Float[Tensor, "out in"] | None = None,
    bias: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "*batch out"]:
    """Product of the delta with x, in the factors' dtype (autocast's inside autocast).

    With a frozen weight: the base layer's output, delta included, in the dtype that it has without the delta.
    """
    in_bfloat16 = weight is not None and x.dtype == weight.dtype == torch.bfloat16
    dtype = torch.bfloat16 if in_bfloat16 else autocast_dtype(x)
    with without_autocast(x.device.type):
        return _Partitioned.apply(x, weight, bias, *factors, partition, dtype)


class _Partitioned(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        minor_a: Tensor | None,
        minor_b: Tensor | None,
        partition: Partition,
        autocast: torch.dtype | None,
    ) -> Tensor:
        factors, dtype, flat = Factors(a, b, minor_a, minor_b), autocast or a.dtype, x.reshape(-1, x.shape[-1])
        left, right, kept = Products(factors, partition, dtype).forward(flat)
        ctx.save_for_backward(x, kept, weight, *factors, *partition[:2])
        ctx.rest = (partition.scales, dtype)
        if weight is None:
            out = left @ right
        else:
            if autocast is not None:
                flat, weight, bias = flat.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            out = _added(nn.functional.linear(flat, weight, bias), left, right)
        return out.view(*x.shape[:-1], partition.out_features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, weight, *saved, rows, minor_rows = ctx.saved_tensors
        scales, dtype = ctx.rest
        factors, partition, needs = Factors(*saved), Partition(rows, minor_rows, scales), ctx.needs_input_grad
        flat_x, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        with without_autocast(grad.device.type):
            left, right, gradients = Products(factors, partition, dtype).backward(flat_x, flat_grad, kept)
            for_x = None
            if needs[0]:
                own = left @ right if weight is None else _added(flat_grad @ weight.to(grad.dtype), left, right)
                for_x = own.to(x.dtype).view_as(x)
        for_bias = flat_grad.sum(0) if needs[2] else None
        minor = (None, None) if factors.minor_a is None else gradients[2:]
        return for_x, None, for_bias, *gradients[:2], *minor, None, None


def _added(to: Float[Tensor, "t n"], left: Float[Tensor, "t R"], right: Float[Tensor, "R n"]) -> Float[Tensor, "t n"]:
    """`to` with the product added in place by the matrix product itself, of factors rounded to its dtype."""
    return to.addmm_(left.to(to.dtype), right.to(to.dtype))
