"""The factors of a low-rank delta whose rows are in two groups of different rank, and both groups' put together."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Factors(NamedTuple):
    """The two groups' factors; the minor one's are None where it has no rows or no rank."""

    a: Float[Tensor, "r in"]
    b: Float[Tensor, "d r"]
    minor_a: Float[Tensor, "r_minor in"] | None = None
    minor_b: Float[Tensor, "m r_minor"] | None = None

    @property
    def ranks(self) -> int:
        """r + r_minor."""
        return self.a.shape[0] + (0 if self.minor_a is None else self.minor_a.shape[0])


class Partition(NamedTuple):
    """Which of the weight's rows are dominant and which are not, each ascending, int64, and the groups' scales."""

    rows: Int[Tensor, "d"]
    minor_rows: Int[Tensor, "m"]
    scales: tuple[float, float]

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.rows.numel() + self.minor_rows.numel()


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
