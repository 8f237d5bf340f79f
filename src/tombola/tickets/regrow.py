"""Tickets that change a little at a time: the weakest entries make room for others (RigL, Evci et al., 2020)."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tombola.tickets.draw import top_k


def grow_and_drop(
    support: Int[Tensor, "units"],
    keep: Float[Tensor, "units"],
    grow: Float[Tensor, "size"],
    count: int,
    *,
    within: Bool[Tensor, "size"] | None = None,
    regrow: bool = False,
) -> Int[Tensor, "units"]:
    """The support without its `count` units of the smallest `keep`, and with the `count` others of the largest `grow`.

    `within` says which units may grow. What was in the support may not, or under `regrow` only what stays in it: a unit
    that is both dropped and grown is then simply kept (SpIEL). Where fewer than `count` may grow, so many fewer go.
    Among equals the smaller index is kept, and grown.
    """
    stays = top_k(keep, support.numel() - count)
    free = torch.ones_like(grow, dtype=torch.bool) if within is None else within.clone()
    free[support[stays] if regrow else support] = False
    grown = top_k(grow, min(count, int(free.sum())), free)
    if grown.numel() < count:
        back = ~torch.isin(support, grown)
        back[stays] = False
        stays = torch.cat([stays, top_k(keep, count - grown.numel(), back)])
    return torch.cat([support[stays], grown]).sort().values


def drop_fraction(step: int, total: int, *, initial: float = 0.2, decay: str = "linear") -> float:
    """The share of a support that changes after `step` of `total` steps: `initial` at 0, nothing at the end.

    Raises ValueError for a `decay` other than linear and cosine.
    """
    if decay == "linear":
        return initial * (1 - step / total)
    if decay == "cosine":
        return initial * (1 + math.cos(math.pi * step / total)) / 2
    raise ValueError(f"decay is linear or cosine. Got {decay!r}.")
