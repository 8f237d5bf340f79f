"""Tickets compared, and counted."""

import torch
from jaxtyping import Int
from torch import Tensor


def origins(new: Int[Tensor, "n"], old: Int[Tensor, "m"]) -> Int[Tensor, "n"]:
    """For each index of `new` its place in `old`, or -1; both ascending."""
    if old.numel() == 0:
        return torch.full_like(new, -1)
    places = torch.searchsorted(old, new)
    found = old[places.clamp(max=old.numel() - 1)] == new
    return torch.where(found, places, -1)


def overlap(one: Int[Tensor, "n"], other: Int[Tensor, "m"]) -> float:
    """The share of the smaller ticket that is in the other, 0 to 1; 0 where one is empty."""
    smaller = min(one.numel(), other.numel())
    return int((origins(one, other) >= 0).sum()) / smaller if smaller else 0.0


def density(ticket: Int[Tensor, "n"], size: int) -> float:
    """The share of `size` units that a ticket holds."""
    return ticket.numel() / size
