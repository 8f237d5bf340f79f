"""A low-rank delta whose rows are in two groups of different rank, by itself or with the base layer's product.

Both groups' factors are put side by side into one A (R, in) and, each row at its place, one B (out, R), both small;
R = r + r_minor. The products are LoRA's, of rank R; the scales are on A x^T. Backward joins them again. It keeps x,
which the layers that share it share, and r numbers for each token, as LoRA does; nothing is ever of the weight's size.

Precision: products are in the factors' dtype, float32 at least; x A^T, the output's gradient times B and the factors
are rounded to the base layer's dtype before the products that it accumulates. With a bfloat16 weight and input all
products are in bfloat16 (summed in float32 inside), as inside autocast they are in its dtype: half of the time, and
the factors' gradients are rounded to 2^-9 of themselves.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.adapters.ops.precision import autocast_dtype, without_autocast


class Factors(NamedTuple):
    """The two groups' factors; the minor one's are None where it has no rows or no rank."""

    a: Float[Tensor, "r in"]
    b: Float[Tensor, "d r"]
    minor_a: Float[Tensor, "r_minor in"] | None = None
    minor_b: Float[Tensor, "m r_minor"] | None = None


class Partition(NamedTuple):
    """Which of the weight's rows are dominant and which are not, each ascending, int64, and the groups' scales."""

    rows: Int[Tensor, "d"]
    minor_rows: Int[Tensor, "m"]
    scales: tuple[float, float]

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.rows.numel() + self.minor_rows.numel()


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


def joined_a(factors: Factors) -> Float[Tensor, "R in"]:
    """Both groups' A, one below the other; a copy, for some products' last bits depend on where a matrix lies."""
    return torch.cat([factors.a] if factors.minor_a is None else [factors.a, factors.minor_a])


def joined_b(factors: Factors, partition: Partition) -> Float[Tensor, "out R"]:
    """Both groups' B side by side, each row at its place in the weight, the rest zero; without the scales."""
    b, minor_b = factors.b, factors.minor_b
    if len(b) == partition.out_features:
        return b
    r = b.shape[1]
    whole = b.new_zeros(partition.out_features, r + (0 if minor_b is None else minor_b.shape[1]))
    whole[:, :r].index_copy_(0, partition.rows, b)
    if minor_b is not None:
        whole[:, r:].index_copy_(0, partition.minor_rows, minor_b)
    return whole


def scale_ranks_(ranks: Float[Tensor, "R any"], r: int, scales: tuple[float, float]) -> Float[Tensor, "R any"]:
    """The first r lines times the dominant rows' scale, the others times the other's, in place."""
    if scales[0] == scales[1]:
        return ranks.mul_(scales[0])
    for lines, scale in zip(ranks.tensor_split([r]), scales, strict=True):
        lines.mul_(scale)
    return ranks


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
        # Ranks lie along the rows of every small product: an odd one then costs what it is, and not the next multiple
        # of a vector's width, which 34 in the place of 32 did.
        inner = scale_ranks_(joined_a(factors).to(dtype) @ flat.to(dtype).T, len(a), partition.scales)
        kept = inner if minor_a is None else inner[: len(a)].clone()
        ctx.save_for_backward(x, kept, weight, *factors, *partition[:2])
        ctx.rest = (partition.scales, dtype)
        outer = joined_b(factors, partition).to(dtype).T
        if weight is None:
            out = inner.T @ outer
        else:
            if autocast is not None:
                flat, weight, bias = flat.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            out = _added(nn.functional.linear(flat, weight, bias), inner.T, outer)
        return out.view(*x.shape[:-1], partition.out_features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, weight, *saved, rows, minor_rows = ctx.saved_tensors
        scales, dtype = ctx.rest
        factors, partition, needs = Factors(*saved), Partition(rows, minor_rows, scales), ctx.needs_input_grad
        r = len(factors.a)
        flat_x, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        with without_autocast(grad.device.type):
            wide_x, wide_grad, a = flat_x.to(dtype), flat_grad.to(dtype), joined_a(factors).to(dtype)
            for_inner = scale_ranks_(joined_b(factors, partition).to(dtype).T @ wide_grad.T, r, scales)
            # The two products with x stand together: it has left the cache since forward, and comes from memory once.
            if factors.minor_a is not None:
                inner = torch.cat([inner, (a[r:] @ wide_x.T).mul_(scales[1])])
            for_a = (for_inner @ wide_x).to(factors.a.dtype)
            for_b = _at_the_rows(inner @ wide_grad, factors, partition)
            for_x = None
            if needs[0]:
                own = for_inner.T @ a if weight is None else _added(flat_grad @ weight.to(grad.dtype), for_inner.T, a)
                for_x = own.to(x.dtype).view_as(x)
        for_bias = flat_grad.sum(0) if needs[2] else None
        minor = (None, None) if factors.minor_a is None else (for_a[r:], for_b[1])
        return for_x, None, for_bias, for_a[:r], for_b[0], *minor, None, None


def _at_the_rows(
    of_joined: Float[Tensor, "R out"], factors: Factors, partition: Partition
) -> list[Float[Tensor, "rows rank"]]:
    """Each group's part of the gradient of the joined B, which comes transposed."""
    b, minor_b, r = factors.b, factors.minor_b, factors.b.shape[1]
    every = len(b) == partition.out_features
    found = [(of_joined[:r] if every else of_joined[:r].index_select(1, partition.rows)).T.to(b.dtype)]
    if minor_b is not None:
        found.append(of_joined[r:].index_select(1, partition.minor_rows).T.to(minor_b.dtype))
    return found


def _added(to: Float[Tensor, "t n"], left: Float[Tensor, "t R"], right: Float[Tensor, "R n"]) -> Float[Tensor, "t n"]:
    """`to` with the product added in place by the matrix product itself, of factors rounded to its dtype."""
    return to.addmm_(left.to(to.dtype), right.to(to.dtype))
