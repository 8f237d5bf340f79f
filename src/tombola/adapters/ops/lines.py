"""A weight as lines of one block's width: contiguous pieces of its rows that a block takes whole."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def block_lines(
    stripe: Int[Tensor, "u"], column: Int[Tensor, "u"], rows: int, per_row: int
) -> Int[Tensor, "u_times_rows"]:
    """Lines of the blocks at (stripe of `rows` rows, block column), in a weight seen as (out * per_row, width)."""
    return following_lines(torch.add(column, stripe, alpha=rows * per_row), rows, per_row)


def following_lines(first: Int[Tensor, "u"], rows: int, per_row: int) -> Int[Tensor, "u_times_rows"]:
    """Lines of the blocks whose first lines these are."""
    return (first[:, None] + torch.arange(0, rows * per_row, per_row, device=first.device)).flatten()


def at_lines(
    weight: Shaped[Tensor, "out in"], lines: Int[Tensor, "l"], width: int
) -> tuple[Shaped[Tensor, "out per_row width"], tuple[Int[Tensor, "l"], Int[Tensor, "l"]]]:
    """A view of the weight, of any strides, and the index of the lines in it."""
    per_row = weight.shape[1] // width
    return weight.unflatten(1, (per_row, width)), (lines // per_row, lines % per_row)
