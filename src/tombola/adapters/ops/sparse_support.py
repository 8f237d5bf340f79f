"""Where a sparse delta may be non-zero: chosen elements of a weight, or chosen tiles of it.

The weight (out, in) is a grid of aligned `block` x `block` tiles, numbered row by row; with `block` 1 a tile is an
element and its number `row * in + column`. A tile's rows are lines of the weight: contiguous, `block` numbers wide.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tombola.adapters.ops.lines import following_lines


class Support(NamedTuple):
    """Chosen units, ascending and unique; `index` None stands for all of them."""

    index: Int[Tensor, "u"] | None  # type: ignore[assignment]  # not tuple's method of that name
    shape: tuple[int, int]
    block: int

    def lines(self) -> Int[Tensor, "u_times_block"]:
        """The chosen tiles' lines, tile by tile, in a weight seen as (out * in / block, block); int64."""
        assert self.index is not None
        index = self.index.long()
        if self.block == 1:
            return index
        per_row = self.shape[1] // self.block
        first = torch.add(index, index // per_row, alpha=(self.block - 1) * per_row)
        return following_lines(first, self.block, per_row)

    def values_shape(self) -> tuple[int, ...]:
        """(units,) for elements, (units, block, block) for tiles."""
        size = self.shape[0] * self.shape[1] // self.block**2
        units = size if self.index is None else self.index.numel()
        return (units,) if self.block == 1 else (units, self.block, self.block)


def take(dense: Shaped[Tensor, "out in"], support: Support) -> Shaped[Tensor, "u *tile"]:
    """The support's entries of a dense matrix, in the values' layout."""
    if support.index is None:
        return _tiles(dense, support.block).reshape(support.values_shape())
    if support.block == 1:  # of a vector: index_select was 4 times as fast as of lines of one number
        return dense.reshape(-1).index_select(0, support.index)
    picked = dense.reshape(-1, support.block).index_select(0, support.lines())
    return picked.view(support.values_shape())


def in_lines(dense: Shaped[Tensor, "out in"], block: int) -> Shaped[Tensor, "l *width"]:
    """A contiguous matrix as lines: of `block` numbers, or a vector where that is one.

    On a CPU single numbers are taken out of a vector 4 times as fast as lines of one number.
    """
    return dense.view(-1) if block == 1 else dense.view(-1, block)


def put(
    storage: Shaped[Tensor, "l *width"], lines: Int[Tensor, "chosen"], content: Shaped[Tensor, "chosen *width"]
) -> None:
    """Writes lines of a storage, each once; single numbers as bits."""
    if storage.dim() > 1:
        storage.index_copy_(0, lines, content)
        return
    # Integers, for floats took a CPU up to ten times as long; scatter_ took half of index_copy_'s time.
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[storage.itemsize]
    storage.view(bits).scatter_(0, lines, content.view(bits))


def scattered(values: Float[Tensor, "u *tile"], support: Support) -> Float[Tensor, "out in"]:
    """The values as a dense matrix, zero outside the support."""
    out_features, in_features = support.shape
    if support.index is None:
        if support.block == 1:
            return values.view(support.shape)
        grid = values.view(out_features // support.block, in_features // support.block, *values.shape[1:])
        return grid.transpose(1, 2).reshape(support.shape)
    dense = values.new_zeros(support.shape)
    storage = in_lines(dense, support.block)
    put(storage, support.lines(), values.reshape(-1, *storage.shape[1:]))
    return dense


def scaled(values: Float[Tensor, "u *tile"], gate: Float[Tensor, "1"] | None, scale: float) -> Float[Tensor, "u *tile"]:
    """The delta's entries, scale * gate * values, in float32 at least where anything is multiplied."""
    if gate is None and scale == 1.0:
        return values
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return wide * (scale if gate is None else scale * gate)


def _tiles(dense: Shaped[Tensor, "out in"], block: int) -> Shaped[Tensor, "down across block block"]:
    return dense.unflatten(1, (-1, block)).unflatten(0, (-1, block)).transpose(1, 2)
