"""A low-rank delta whose rows are in two groups of different rank, by itself or with the base layer's product.

Forward puts both groups' factors side by side into one A (R, in) and, each row scaled and at its place, one B (out, R)
with R = r + r_minor: small matrices, so that the rows fall into their places within one product. Backward gathers each
group's columns of the gradient instead, which halves the work where half of the rows are dominant. It keeps x, which
the layers that share it share, and r numbers for each token, as LoRA does; nothing is ever of the weight's size.

Precision: the factors' products are in the factors' dtype, float32 at least, and are rounded to that of the base
layer's output once, in the sum. Inside autocast they are in its dtype. So it is in PEFT's LoRA.
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
    """Which of the weight's rows are dominant, ascending, and the fixed factors of the dominant and of the others."""

    rows: Int[Tensor, "d"]
    out_features: int
    scales: tuple[float, float]

    def dominant(self) -> Int[Tensor, "d"]:
        """The dominant rows, int64."""
        return self.rows.long()

    def minor(self) -> Int[Tensor, "m"]:
        """The other rows, ascending, int64: the j-th is j plus the number of dominant rows before it."""
        dominant = self.dominant()
        others_before = dominant - torch.arange(len(dominant), device=dominant.device)
        numbers = torch.arange(self.out_features - len(dominant), device=dominant.device)
        return numbers + torch.searchsorted(others_before, numbers, right=True)


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
    dtype = autocast_dtype(x)
    with without_autocast(x.device.type):
        return _Partitioned.apply(x, weight, bias, *factors, partition, dtype)


def joined_a(factors: Factors) -> Float[Tensor, "R in"]:
    """Both groups' A, one below the other; a copy, for some products' last bits depend on where a matrix lies."""
    return torch.cat([factors.a] if factors.minor_a is None else [factors.a, factors.minor_a])


def joined_b(factors: Factors, partition: Partition) -> Float[Tensor, "out R"]:
    """Both groups' B side by side, each row scaled and at its place in the weight, the rest zero."""
    b, minor_b, (scale, minor_scale) = factors.b, factors.minor_b, partition.scales
    if len(b) == partition.out_features:
        return scale * b
    r = b.shape[1]
    whole = b.new_zeros(partition.out_features, r + (0 if minor_b is None else minor_b.shape[1]))
    whole[:, :r].index_copy_(0, partition.dominant(), scale * b)
    if minor_b is not None:
        whole[:, r:].index_copy_(0, partition.minor(), minor_scale * minor_b)
    return whole


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
        inner = joined_a(factors).to(dtype) @ flat.to(dtype).T
        kept = inner if minor_a is None else inner[: len(a)].clone()
        ctx.save_for_backward(x, kept, weight, *factors, partition.rows)
        ctx.rest = (*partition[1:], dtype)
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
        x, kept, weight, *saved, rows = ctx.saved_tensors
        *rest, dtype = ctx.rest
        factors, partition, needs = Factors(*saved), Partition(rows, *rest), ctx.needs_input_grad
        flat_x, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        with without_autocast(grad.device.type):
            wide_x = flat_x.to(dtype)
            inner = [kept] if factors.minor_a is None else [kept, factors.minor_a.to(dtype) @ wide_x.T]
            for_inner, for_b = _through_b(flat_grad.to(dtype), inner, factors, partition)
            for_a = (for_inner @ wide_x).to(factors.a.dtype).tensor_split([len(factors.a)])
            for_x = _through_a(flat_grad, weight, for_inner, factors).to(x.dtype).view_as(x) if needs[0] else None
        for_bias = flat_grad.sum(0) if needs[2] else None
        minor = (None, None) if factors.minor_a is None else (for_a[1], for_b[1])
        return for_x, None, for_bias, for_a[0], for_b[0], *minor, None, None


def _through_b(
    grad: Float[Tensor, "t out"], inner: list[Float[Tensor, "rank t"]], factors: Factors, partition: Partition
) -> tuple[Float[Tensor, "R t"], list[Float[Tensor, "rows rank"]]]:
    """The gradients of the inner products, one below the other, and of each group's B."""
    every = len(factors.b) == partition.out_features
    groups = [(factors.b, grad if every else grad.index_select(1, partition.rows), partition.scales[0])]
    if factors.minor_b is not None:
        groups.append((factors.minor_b, grad.index_select(1, partition.minor()), partition.scales[1]))
    for_inner = [(scale * b).to(grad.dtype).T @ part.T for b, part, scale in groups]
    for_b = [(scale * (one @ part)).T.to(b.dtype) for one, (b, part, scale) in zip(inner, groups, strict=True)]
    return torch.cat(for_inner), for_b


def _through_a(
    grad: Float[Tensor, "t out"], weight: Tensor | None, for_inner: Float[Tensor, "R t"], factors: Factors
) -> Float[Tensor, "t in"]:
    """The gradient of x."""
    a = joined_a(factors).to(for_inner.dtype)
    return for_inner.T @ a if weight is None else _added(grad @ weight.to(grad.dtype), for_inner.T, a)


def _added(to: Float[Tensor, "t n"], left: Float[Tensor, "t R"], right: Float[Tensor, "R n"]) -> Float[Tensor, "t n"]:
    """`to` with the product added in place: by the matrix product itself where the dtypes are one."""
    return to.addmm_(left, right) if to.dtype == left.dtype else to.add_(left @ right)
