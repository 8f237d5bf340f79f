"""The best entries, exactly so many; among equals the smaller index wins. Tickets are ascending int64 indices."""

import itertools
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tombola.tickets.score import block_sums


def top_k(scores: Float[Tensor, "n"], count: int, within: Bool[Tensor, "n"] | None = None) -> Int[Tensor, "count"]:
    """Indices of the `count` largest scores, of those `within` if that is given.

    Raises ValueError for more than there are, and for scores that are NaN.
    """
    if within is not None:
        candidates = within.nonzero().flatten()
        return candidates[top_k(scores[candidates], count)]
    if not 0 <= count <= scores.numel():
        raise ValueError(f"{count} of {scores.numel()} scores cannot be chosen: choose from 0 to all of them.")
    if bool(scores.isnan().any()):
        raise ValueError("Scores that are NaN have no order. Look for a gradient or a value that is not finite.")
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=scores.device)
    # The largest as a set are the same however topk orders equals; which of those at its edge are in is decided here.
    edge = scores.topk(count, sorted=False).values.min()
    chosen = scores > edge
    at_edge = (scores == edge).nonzero().flatten()
    chosen[at_edge[: count - int(chosen.sum())]] = True
    return chosen.nonzero().flatten()


def draw(
    scores: Mapping[str, Tensor],
    budget: int | Mapping[str, int],
    *,
    block: int = 1,
    scope: str = "tensor",
    within: Mapping[str, Tensor] | None = None,
) -> dict[str, Int[Tensor, "units"]]:
    """The best units of each tensor, by its name.

    `scores` are (out, in) or flat. With `block` > 1 a unit is an aligned tile of a (out, in) tensor, its score the sum
    over the tile, its number row-major over the grid of tiles. `budget` is in units: under `scope="tensor"` of each
    tensor, or of each by its name; under `scope="model"` of all together, where equals are taken in the mapping's order
    first. `within` has for each tensor which units may be drawn, (units,) bool.

    Raises ValueError for a budget that is larger than what there is, or of the wrong kind for the scope.
    """
    units = {name: block_sums(one, block) if block > 1 else one.flatten() for name, one in scores.items()}
    allowed = {name: None if within is None else within[name].flatten() for name in units}
    if scope == "tensor":
        each = {name: budget[name] if isinstance(budget, Mapping) else budget for name in units}
        return {name: top_k(one, each[name], allowed[name]) for name, one in units.items()}
    if scope != "model" or isinstance(budget, Mapping):
        raise ValueError(f"scope is tensor, or model with one number for a budget. Got {scope!r} and {budget!r}.")
    everywhere = None if within is None else torch.cat([within[name].flatten() for name in units])
    chosen = top_k(torch.cat(list(units.values())), budget, everywhere)
    ends = list(itertools.accumulate(one.numel() for one in units.values()))
    cuts = torch.searchsorted(chosen, torch.tensor([0, *ends], device=chosen.device)).tolist()
    starts = [0, *ends]
    return {name: chosen[cuts[i] : cuts[i + 1]] - starts[i] for i, name in enumerate(units)}


def random_support(size: int, count: int, generator: torch.Generator) -> Int[Tensor, "count"]:
    """`count` of `size` indices without replacement, all sets equally likely; on the CPU.

    Raises ValueError for more than there are.
    """
    if not 0 <= count <= size:
        raise ValueError(f"{count} of {size} indices cannot be drawn: draw from 0 to all of them.")
    return torch.randperm(size, generator=generator)[:count].sort().values
