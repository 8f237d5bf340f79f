"""Masked LoRA's small products on a CPU in compiled code (`masked_cpu.c`), which gathers no column.

All results are float32, and the same bits for any number of threads.
"""

import ctypes
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.adapters.ops.compiled import HALF, LANES, ROWS, SPAN, apart, call, numbers
from tombola.adapters.ops.factor import Kept


class _Masked(ctypes.Structure):
    _fields_ = [
        *numbers("x", "grad", "a", "b", "columns", "rows"),
        *numbers(
            "tokens", "in", "out", "kept_columns", "kept_rows", "ranks", "lanes", "half_x", "half_grad", "threads"
        ),
        ("scale", ctypes.c_double),
    ]


class Lines(NamedTuple):
    """What is stored of A, columns, and of B, rows, in float32, and the delta's scale."""

    a: Float[Tensor, "r kept_a"]
    b: Float[Tensor, "kept_b r"]
    kept_a: Kept
    kept_b: Kept
    scale: float


def masked_forward(x: Float[Tensor, "t in"], lines: Lines) -> tuple[Float[Tensor, "t r"], Float[Tensor, "out r"]]:
    """x A^T, and B with its zeros."""
    x, lanes = x.contiguous(), _lanes(lines)
    room = lines.a.shape[1] * lanes + _rows_to_multiply(x) * x.shape[1]
    inner, rest, whole_b = apart((_whole_blocks(x), lanes), (room,), lines.kept_b.shape)
    _call("masked_forward", inner, whole_b, rest, x=x, grad=None, lines=lines)
    return inner[: x.shape[0], : lines.a.shape[0]], whole_b


def masked_backward(
    x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], lines: Lines
) -> tuple[Float[Tensor, "t r"], Float[Tensor, "r in"], Float[Tensor, "r kept_a"], Float[Tensor, "kept_b r"]]:
    """scale * grad B, A with its zeros, and the gradients of A and B: with G = grad^T x, of scale * B^T G and G A^T."""
    x, grad, lanes = x.contiguous(), grad.contiguous(), _lanes(lines)
    for_a, for_b = torch.empty(lines.a.shape), torch.empty(lines.b.shape)
    room = 2 * (lines.a.shape[1] + lines.b.shape[0]) * lanes + (ROWS + SPAN) * lanes
    room += _rows_to_multiply(x) * x.shape[1] + _rows_to_multiply(grad) * grad.shape[1]
    through_b, rest, whole_a = apart((_whole_blocks(x), lanes), (room,), lines.kept_a.shape)
    _call("masked_backward", through_b, whole_a, for_a, for_b, rest, x=x, grad=grad, lines=lines)
    return through_b[: x.shape[0], : lines.a.shape[0]], whole_a, for_a, for_b


def _whole_blocks(x: Float[Tensor, "t in"]) -> int:
    return -(-x.shape[0] // ROWS) * ROWS


def _rows_to_multiply(matrix: Float[Tensor, "t columns"]) -> int:
    """Rows that are copied: the last block's, and where they are widened a span's."""
    return ROWS + SPAN * HALF[matrix.dtype]


def _lanes(lines: Lines) -> int:
    return -(-lines.a.shape[0] // LANES) * LANES


def _call(function: str, *results: Tensor, x: Tensor, grad: Tensor | None, lines: Lines) -> None:
    a, b, kept_a, kept_b, scale = lines
    assert kept_a.places is not None
    assert kept_b.places is not None
    held = (a.contiguous(), b.contiguous(), kept_a.places.int(), kept_b.places.int())  # while their addresses are used
    counts = (x.shape[0], x.shape[1], kept_b.shape[0], a.shape[1], b.shape[0], a.shape[0], _lanes(lines))
    halves = (HALF[x.dtype], 0 if grad is None else HALF[grad.dtype])
    addresses = (x.data_ptr(), 0 if grad is None else grad.data_ptr(), *(one.data_ptr() for one in held))
    call(function, *results, _Masked(*addresses, *counts, *halves, torch.get_num_threads(), scale))
