"""A small matrix of which only some lines, or some entries, are stored."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


class Kept(NamedTuple):
    """What is stored of a (rows, columns) matrix.

    `places` are ascending and unique; None stands for all. `dim` says whether they are numbers of rows (0), of columns
    (1) or, None, of entries row by row.
    """

    places: Int[Tensor, "n"] | None
    shape: tuple[int, int]
    dim: int | None

    def numel(self) -> int:
        """How many numbers are stored."""
        rows, columns = self.shape
        if self.places is None:
            return rows * columns
        return self.places.numel() * {None: 1, 0: columns, 1: rows}[self.dim]

    def rows(self, device: torch.device) -> Int[Tensor, "r"]:
        """Rows in which anything is stored, ascending; int64."""
        if self.places is None or self.dim == 1:
            return torch.arange(self.shape[0], device=device)
        places = self.places.long()
        return places if self.dim == 0 else (places // self.shape[1]).unique()


def spread(values: Float[Tensor, "*stored"], kept: Kept) -> Float[Tensor, "rows columns"]:
    """The whole matrix, zero where nothing is stored."""
    if kept.places is None:
        return values.view(kept.shape)
    whole = values.new_zeros(kept.shape)
    if kept.dim is None:
        whole.view(-1).index_copy_(0, kept.places.long(), values)
        return whole
    return whole.index_copy_(kept.dim, kept.places.long(), values)


def stored(whole: Shaped[Tensor, "rows columns"], kept: Kept) -> Shaped[Tensor, "*stored"]:
    """What is stored of a whole matrix, in the values' layout."""
    if kept.dim is None:
        whole = whole.reshape(-1)
    return whole if kept.places is None else whole.index_select(kept.dim or 0, kept.places)
