"""Masked LoRA's small products on a CPU in compiled code (`masked_cpu.c`), which gathers no column.

For a `Masked` of whose factors lines are stored, in float32.

All results are float32, and the same bits for any number of threads.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.adapters.ops.compiled import HALF, LANES, ROWS, SPAN, call, in_one_allocation, numbers, rounded_up

if TYPE_CHECKING:
    from tombola.adapters.ops.masked_products import Masked


class _Masked(ctypes.Structure):
    _fields_ = [
        *numbers("x", "grad", "a", "b", "columns", "rows"),
        *numbers(
            "tokens", "in", "out", "kept_columns", "kept_rows", "ranks", "lanes", "half_x", "half_grad", "threads"
        ),
        ("scale", ctypes.c_double),
    ]


def masked_forward(x: Float[Tensor, "t in"], delta: Masked) -> tuple[Float[Tensor, "t r"], Float[Tensor, "out r"]]:
    """x A^T, and B with its zeros."""
    x, lanes = x.contiguous(), _lanes(delta)
    room = delta.a.shape[1] * lanes + _copied_rows(x) * x.shape[1]
    inner, rest, whole_b = in_one_allocation((rounded_up(x.shape[0], ROWS), lanes), (room,), delta.kept_b.shape)
    _call("masked_forward", inner, whole_b, rest, x=x, grad=None, delta=delta)
    return inner[: x.shape[0], : delta.a.shape[0]], whole_b


def masked_backward(
    x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], delta: Masked
) -> tuple[Float[Tensor, "t r"], Float[Tensor, "r in"], Float[Tensor, "r kept_a"], Float[Tensor, "kept_b r"]]:
    """scale * grad B, A with its zeros, and the gradients of A and B: with G = grad^T x, of scale * B^T G and G A^T."""
    x, grad, lanes = x.contiguous(), grad.contiguous(), _lanes(delta)
    for_a, for_b = torch.empty(delta.a.shape), torch.empty(delta.b.shape)
    room = 2 * (delta.a.shape[1] + delta.b.shape[0]) * lanes + (ROWS + SPAN) * lanes
    room += _copied_rows(x) * x.shape[1] + _copied_rows(grad) * grad.shape[1]
    through_b, rest, whole_a = in_one_allocation((rounded_up(x.shape[0], ROWS), lanes), (room,), delta.kept_a.shape)
    _call("masked_backward", through_b, whole_a, for_a, for_b, rest, x=x, grad=grad, delta=delta)
    return through_b[: x.shape[0], : delta.a.shape[0]], whole_a, for_a, for_b


def _copied_rows(matrix: Float[Tensor, "t columns"]) -> int:
    """Rows that are copied: the last block's, and where they are widened a span's."""
    return ROWS + SPAN * HALF[matrix.dtype]


def _lanes(delta: Masked) -> int:
    return rounded_up(delta.a.shape[0], LANES)


def _call(function: str, *results: Tensor, x: Tensor, grad: Tensor | None, delta: Masked) -> None:
    a, b, kept_a, kept_b, scale, _ = delta
    assert kept_a.places is not None
    assert kept_b.places is not None
    held = (a.contiguous(), b.contiguous(), kept_a.places.int(), kept_b.places.int())  # while their addresses are used
    counts = (x.shape[0], x.shape[1], kept_b.shape[0], a.shape[1], b.shape[0], a.shape[0], _lanes(delta))
    halves = (HALF[x.dtype], 0 if grad is None else HALF[grad.dtype])
    addresses = (x.data_ptr(), 0 if grad is None else grad.data_ptr(), *(one.data_ptr() for one in held))
    call(function, *results, _Masked(*addresses, *counts, *halves, torch.get_num_threads(), scale))
