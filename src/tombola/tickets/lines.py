"""Whole rows and columns taken out of a weight, the least important first, and how many of them can go."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tombola.tickets.draw import top_k


def kept_lines(importance: Float[Tensor, "n"], share: float, *, least: int = 0) -> Bool[Tensor, "n"]:
    """True for all lines but the floor(share * n) least important, and for `least` of them whatever the share.

    Among equals the smaller index is kept. Raises ValueError for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share of lines to take out is from 0 to 1. Got {share}.")
    size = importance.numel()
    gone = int(share * size + 1e-9)  # 0.29 * 100 is a little below 29
    kept = torch.zeros(size, dtype=torch.bool, device=importance.device)
    kept[top_k(importance, max(size - gone, least))] = True
    return kept


def without_lines(
    weight: Float[Tensor, "out in"], rows: Bool[Tensor, "out"], columns: Bool[Tensor, "in"]
) -> Float[Tensor, "out in"]:
    """A copy of the weight that is zero outside the rows and columns that are kept."""
    return weight * (rows[:, None] & columns)


def last_passing(passes: Callable[[int], bool], most: int) -> int:
    """The largest of 0 to `most` that passes, by bisection; 0 passes unasked.

    Assumes that what follows a failure fails as well; then it is what a search step by step ends with. Asks at most
    ceil(log2(most + 1)) times.
    """
    passed, failed = 0, most + 1
    while failed - passed > 1:
        middle = (passed + failed) // 2
        if passes(middle):
            passed = middle
        else:
            failed = middle
    return passed
