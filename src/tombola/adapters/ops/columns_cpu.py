"""Products of a few columns of a matrix with thin ones, in compiled code (`columns_cpu.c`) that gathers nothing.

All results are float32, and the same bits for any number of threads.
"""

import ctypes

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tombola.adapters.ops.compiled import HALF, LANES, ROWS, SPAN, call, numbers


class _Tall(ctypes.Structure):
    _fields_ = numbers("numbers", "columns", "tokens", "width", "kept", "half", "lanes", "threads")


def times_factor(
    matrix: Float[Tensor, "t width"], columns: Int[Tensor, "k"], factor: Float[Tensor, "k r"]
) -> Float[Tensor, "t r"]:
    """matrix[:, columns] @ factor."""
    matrix, wide = matrix.contiguous(), _in_lanes(factor)
    thin = torch.empty(-(-len(matrix) // ROWS) * ROWS, wide.shape[1])
    room = torch.empty(torch.get_num_threads() * ROWS * matrix.shape[1])
    _call("times_factor", thin, wide, room, matrix, columns)
    return thin[: len(matrix), : factor.shape[1]]


def transposed_times(
    matrix: Float[Tensor, "t width"], columns: Int[Tensor, "k"], thin: Float[Tensor, "t r"]
) -> Float[Tensor, "k r"]:
    """matrix[:, columns]^T @ thin."""
    matrix, wide = matrix.contiguous(), _in_lanes(thin)
    out = torch.empty(len(columns), wide.shape[1])
    room = torch.empty(SPAN * matrix.shape[1] if HALF[matrix.dtype] else 0)
    _call("transposed_times", out, wide, room, matrix, columns)
    return out[:, : thin.shape[1]]


def _in_lanes(thin: Float[Tensor, "n r"]) -> Float[Tensor, "n lanes"]:
    return nn.functional.pad(thin, (0, -thin.shape[1] % LANES)).contiguous()


def _call(function: str, result: Tensor, thin: Tensor, room: Tensor, matrix: Tensor, columns: Tensor) -> None:
    columns = columns.int()
    counts = (*matrix.shape, len(columns), HALF[matrix.dtype], thin.shape[1], torch.get_num_threads())
    call(function, result, thin, room, _Tall(matrix.data_ptr(), columns.data_ptr(), *counts))
