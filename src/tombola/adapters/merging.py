"""Writing blocks into a base weight and taking them out again without a trace."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Merge:
    """What a merge overwrote, so that unmerging is exact where subtracting would drift."""

    cells: Int[Tensor, "u"]
    grid: tuple[int, int]
    originals: Float[Tensor, "u r c"]


@torch.no_grad()
def add_blocks(
    layer: nn.Module,
    delta: Float[Tensor, "out in"],
    cells: Int[Tensor, "u"],
    grid: tuple[int, int],
    name: str,
    *,
    check: bool,
) -> Merge:
    """Adds the delta's blocks at those cells to the layer's weight, in the wider of the two types.

    Raises ValueError for a quantised or sharded weight and, with `check`, for a sum that is not finite.
    """
    weight = _plain_weight(layer)
    blocks, where = _blocks(weight, grid), _where(cells, grid)
    originals = blocks[where]
    sums = (originals + _blocks(delta.to(weight.device), grid)[where]).to(weight.dtype)
    if check and not torch.isfinite(sums).all():
        raise ValueError(f"merging the adapter {name!r} would put NaN or infinity into the weights: it is broken")
    blocks[where] = sums
    return Merge(cells, grid, originals)


@torch.no_grad()
def put_back(layer: nn.Module, merge: Merge) -> None:
    """Restores the blocks that a merge overwrote."""
    weight = _plain_weight(layer)
    _blocks(weight, merge.grid)[_where(merge.cells, merge.grid)] = merge.originals.to(weight)


def _plain_weight(layer: nn.Module) -> Float[Tensor, "out in"]:
    weight = getattr(layer, "weight", None)
    if hasattr(weight, "ds_id") or hasattr(weight, "full_tensor"):
        raise ValueError(
            f"cannot merge into the weight of {type(layer).__name__}, of which this process holds a shard: "
            "save the adapter, load it on one process, and merge there"
        )
    plain = isinstance(weight, Tensor) and type(weight.data) is Tensor and weight.is_floating_point()
    if weight is None or not plain or weight.itemsize < 2 or weight.dim() != 2:
        raise ValueError(
            f"cannot merge into the weight of {type(layer).__name__}, which is quantised and would be rounded again: "
            "load the base model in float32 or bfloat16, load the adapter onto it, and merge there"
        )
    return weight.data


def _blocks(weight: Float[Tensor, "out in"], grid: tuple[int, int]) -> Float[Tensor, "m n r c"]:
    n, m = grid
    return weight.unflatten(1, (n, -1)).unflatten(0, (m, -1)).transpose(1, 2)


def _where(cells: Int[Tensor, "u"], grid: tuple[int, int]) -> tuple[Int[Tensor, "u"], Int[Tensor, "u"]]:
    _, m = grid
    return cells % m, cells // m
