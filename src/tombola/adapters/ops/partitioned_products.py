"""The small products of a partitioned LoRA: all but the one with the weight, and those that are added to that."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.adapters.ops.compiled import is_compiled_for
from tombola.adapters.ops.joined import Factors, Partition, joined_a, joined_b, scale_ranks_
from tombola.adapters.ops.partitioned_cpu import partitioned_backward, partitioned_forward


class Inner(NamedTuple):
    """Two factors of the delta's product with x, and x times the first group's A, which backward wants."""

    left: Float[Tensor, "t R"]
    right: Float[Tensor, "R out"]
    kept: Float[Tensor, "r t"]


class Gradients(NamedTuple):
    """Two factors of the gradient of x, and the gradients of the groups' factors."""

    left: Float[Tensor, "t R"]
    right: Float[Tensor, "R in"]
    factors: Factors


class Products(NamedTuple):
    """Both groups' factors, where their rows are, and the dtype to multiply in."""

    factors: Factors
    partition: Partition
    dtype: torch.dtype

    def forward(self, x: Float[Tensor, "t in"]) -> Inner:
        """From the layer's input."""
        factors, partition, dtype = self
        if self._in_compiled_code(x):
            kept, left, outer = partitioned_forward(x, factors, partition)
            return Inner(left, outer.t(), kept.t())
        # Ranks lie along the rows of every small product: an odd one then costs what it is, and not the next multiple
        # of a vector's width, which 34 in the place of 32 did.
        inner = scale_ranks_(joined_a(factors).to(dtype) @ x.to(dtype).T, len(factors.a), partition.scales)
        kept = inner if factors.minor_a is None else inner[: len(factors.a)].clone()
        return Inner(inner.T, joined_b(factors, partition).to(dtype).T, kept)

    def backward(self, x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], kept: Float[Tensor, "r t"]) -> Gradients:
        """From the layer's input, its output's gradient and what forward kept."""
        factors, partition, dtype = self
        if self._in_compiled_code(x):  # as forward asked, for what it kept bears no scale there
            return Gradients(*partitioned_backward(x, grad.float(), kept.t(), factors, partition))
        x, grad, a, r = x.to(dtype), grad.to(dtype), joined_a(factors).to(dtype), len(factors.a)
        through = scale_ranks_(joined_b(factors, partition).to(dtype).T @ grad.T, r, partition.scales)
        # The two products with x stand together: it has left the cache since forward, and comes from memory once.
        inner = kept if factors.minor_a is None else torch.cat([kept, (a[r:] @ x.T).mul_(partition.scales[1])])
        for_a = (through @ x).to(factors.a.dtype)
        for_b, for_minor_b = _at_the_rows(inner @ grad, factors, partition)
        return Gradients(through.T, a, Factors(for_a[:r], for_b, for_a[r:], for_minor_b))

    def _in_compiled_code(self, x: Float[Tensor, "t in"]) -> bool:
        return x.dtype == self.dtype == self.factors.a.dtype == torch.float32 and is_compiled_for(x)


def _at_the_rows(
    of_joined: Float[Tensor, "R out"], factors: Factors, partition: Partition
) -> tuple[Float[Tensor, "d r"], Float[Tensor, "m r_minor"] | None]:
    """Each group's part of the gradient of the joined B, which comes transposed."""
    b, minor_b, r = factors.b, factors.minor_b, factors.b.shape[1]
    every = len(b) == partition.out_features
    first = of_joined[:r] if every else of_joined[:r].index_select(1, partition.rows)
    minor = None if minor_b is None else of_joined[r:].index_select(1, partition.minor_rows).T.to(minor_b.dtype)
    return first.T.to(b.dtype), minor
