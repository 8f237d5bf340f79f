"""Masked LoRA's small products on a CPU in compiled code (`masked_cpu.c`), which gathers no column.

All results are float32, and the same bits for any number of threads.
"""

import ctypes
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.adapters.ops.compiled import HALF, LANES, ROWS, SPAN, call, numbers
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
    x, ranks, lanes = x.contiguous(), lines.a.shape[0], _lanes(lines)
    inner, whole_b = _thin(x.shape[0], lanes), torch.empty(lines.kept_b.shape)
    room = torch.empty(lines.a.shape[1] * lanes + (ROWS + SPAN) * x.shape[1])
    _call("masked_forward", inner, whole_b, room, x=x, grad=None, lines=lines)
    return inner[: x.shape[0], :ranks], whole_b


def masked_backward(
    x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], lines: Lines
) -> tuple[Float[Tensor, "t r"], Float[Tensor, "r in"], Float[Tensor, "r kept_a"], Float[Tensor, "kept_b r"]]:
    """scale * grad B, A with its zeros, and the gradients of A and B: with G = grad^T x, of scale * B^T G and G A^T."""
    x, grad, lanes = x.contiguous(), grad.contiguous(), _lanes(lines)
    tokens, lines_of_both = x.shape[0], lines.a.shape[1] + lines.b.shape[0]
    through_b, whole_a = _thin(tokens, lanes), torch.empty(lines.kept_a.shape)
    for_a, for_b = torch.empty(lines.a.shape), torch.empty(lines.b.shape)
    room = torch.empty(2 * lines_of_both * lanes + (ROWS + SPAN) * (x.shape[1] + grad.shape[1] + lanes))
    _call("masked_backward", through_b, whole_a, for_a, for_b, room, x=x, grad=grad, lines=lines)
    return through_b[:tokens, : lines.a.shape[0]], whole_a, for_a, for_b


def _lanes(lines: Lines) -> int:
    return -(-lines.a.shape[0] // LANES) * LANES


def _thin(tokens: int, lanes: int) -> Float[Tensor, "t lanes"]:
    return torch.empty(-(-tokens // ROWS) * ROWS, lanes)


def _call(function: str, *results: Tensor, x: Tensor, grad: Tensor | None, lines: Lines) -> None:
    a, b, kept_a, kept_b, scale = lines
    assert kept_a.places is not None
    assert kept_b.places is not None
    held = (a.contiguous(), b.contiguous(), kept_a.places.int(), kept_b.places.int())  # while their addresses are used
    counts = (x.shape[0], x.shape[1], kept_b.shape[0], a.shape[1], b.shape[0], a.shape[0], _lanes(lines))
    halves = (HALF[x.dtype], 0 if grad is None else HALF[grad.dtype])
    addresses = (x.data_ptr(), 0 if grad is None else grad.data_ptr(), *(one.data_ptr() for one in held))
    call(function, *results, _Masked(*addresses, *counts, *halves, torch.get_num_threads(), scale))
