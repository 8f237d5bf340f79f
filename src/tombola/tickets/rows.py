"""Which rows of a weight, neurons that is, matter most while LoRA trains (PiLoRA, equation 7 and what follows it)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tombola.tickets.draw import top_k

ROW_RULES = ("majority", "mean", "cumulative", "top_frac")
TOP_FRACTION = 0.5
CHUNK_NUMBERS = 1 << 20  # of the (rows, in) piece that is in memory at a time


def row_scores(
    a: Float[Tensor, "r in"],
    b: Float[Tensor, "out r"],
    grad_a: Float[Tensor, "r in"],
    grad_b: Float[Tensor, "out r"],
    *,
    chunk_numbers: int = CHUNK_NUMBERS,
) -> Float[Tensor, "out"]:
    """Sum over each row of |B GA + GB A|: how a step along the gradient changes the delta; a few rows at a time."""
    left, right = torch.cat([b, grad_b], dim=1), torch.cat([grad_a, a])
    rows = max(1, chunk_numbers // right.shape[1])
    return torch.cat([(piece @ right).abs_().sum(dim=1) for piece in left.split(rows)])


def above_mean(scores: Float[Tensor, "out"]) -> Bool[Tensor, "out"]:
    """Whether each score is above the mean: what a check counts as a hit."""
    return scores > scores.mean()


def dominant_mask(
    rule: str, hits: Int[Tensor, "out"], sums: Float[Tensor, "out"], checks: int, *, theta: float
) -> Bool[Tensor, "out"]:
    """The dominant rows, some but not all, from each row's hits in so many checks and its scores summed over them.

    - `majority`: hit in more than half of the checks. `mean`: more hits than the mean.
    - `cumulative`: as few rows as have `theta` of the summed scores. `top_frac`: the half with the largest sums.

    A rule that gives no row or all gives way to `mean`, and that to `top_frac`; a single row is always dominant. The
    paper leaves the rule open; why `majority` is likely: the shares of its table 1. Raises ValueError for another rule.
    """
    if rule not in ROW_RULES:
        raise ValueError(f"A rule for dominant rows is one of {', '.join(ROW_RULES)}. Got {rule!r}.")
    for each in dict.fromkeys((rule, "mean")):
        mask = _by_rule(each, hits, sums, checks, theta)
        if 0 < int(mask.sum()) < len(mask):
            return mask
    return _by_rule("top_frac", hits, sums, checks, theta)


def _by_rule(
    rule: str, hits: Int[Tensor, "out"], sums: Float[Tensor, "out"], checks: int, theta: float
) -> Bool[Tensor, "out"]:
    if rule == "majority":
        return 2 * hits > checks
    if rule == "mean":
        return hits * len(hits) > hits.sum()
    count = max(1, round(TOP_FRACTION * len(sums)))
    if rule == "cumulative":
        largest_first = sums.double().sort(descending=True).values.cumsum(0)
        count = int((largest_first < theta * largest_first[-1]).sum()) + 1
    mask = torch.zeros_like(hits, dtype=torch.bool)
    mask[top_k(sums, min(count, len(sums)))] = True
    return mask
