"""A partitioned LoRA's small products on a CPU in compiled code (`partitioned_cpu.c`), in float32.

Results are the same bits for any number of threads.
"""

import ctypes

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.adapters.ops.compiled import LANES, ROWS, SPAN, call, in_one_allocation, numbers, rounded_up
from tombola.adapters.ops.joined import Factors, Partition


class _Partitioned(ctypes.Structure):
    _fields_ = [
        *numbers("x", "grad", "inner", "a", "b", "minor_a", "minor_b", "rows", "minor_rows"),
        *numbers("tokens", "in", "out", "dominant", "minor", "r", "r_minor", "lanes", "threads"),
        ("scale", ctypes.c_double),
        ("minor_scale", ctypes.c_double),
    ]


def partitioned_forward(
    x: Float[Tensor, "t in"], factors: Factors, partition: Partition
) -> tuple[Float[Tensor, "t r"], Float[Tensor, "t R"], Float[Tensor, "out R"]]:
    """x times the first group's A, and times both groups'; and both B, scaled, each row at its place."""
    ranks, (r, _, lanes), (tokens, in_features) = factors.ranks, _ranks(factors), x.shape
    room = (rounded_up(tokens, ROWS) + in_features) * lanes + (ROWS + 1) * in_features
    inner = torch.empty(tokens, r)
    joined, outer, rest = in_one_allocation((tokens, ranks), (partition.out_features, ranks), (room,))
    results = (inner, joined, outer, rest)
    _call("partitioned_forward", *results, given=(x, None, None), factors=factors, partition=partition)
    return inner, joined, outer


def partitioned_backward(
    x: Float[Tensor, "t in"],
    grad: Float[Tensor, "t out"],
    inner: Float[Tensor, "t r"],
    factors: Factors,
    partition: Partition,
) -> tuple[Float[Tensor, "t R"], Float[Tensor, "R in"], Factors]:
    """grad times both B, scaled; both A; and the gradients of the factors."""
    tokens, in_features, out_features, dominant = *x.shape, grad.shape[1], factors.b.shape[0]
    ranks, (_, r_minor, lanes) = factors.ranks, _ranks(factors)
    found = [torch.empty(shape) for shape in (factors.a.shape, factors.b.shape, (r_minor, in_features))]
    found.append(torch.empty(partition.minor_rows.numel(), r_minor))
    in_lines = (2 * dominant + in_features + 2 * (ROWS + SPAN)) * lanes
    in_minor = (2 * out_features + ROWS + SPAN) * r_minor
    room = in_lines + in_minor + ROWS * (in_features + out_features) + in_features + dominant
    rest, through, whole_a = in_one_allocation((room,), (tokens, ranks), (ranks, in_features))
    results = (through, whole_a, *found, rest)
    _call("partitioned_backward", *results, given=(x, grad, inner), factors=factors, partition=partition)
    return through, whole_a, Factors(*found)


def _call(
    function: str,
    *results: Tensor,
    given: tuple[Tensor, Tensor | None, Tensor | None],
    factors: Factors,
    partition: Partition,
) -> None:
    held = [None if one is None else one.contiguous() for one in (*given, *factors, *partition[:2])]
    addresses = [0 if one is None else one.data_ptr() for one in held]
    sizes = (*given[0].shape, partition.out_features, partition.rows.numel(), partition.minor_rows.numel())
    call(
        function,
        *results,
        _Partitioned(*addresses, *sizes, *_ranks(factors), torch.get_num_threads(), *partition.scales),
    )


def _ranks(factors: Factors) -> tuple[int, int, int]:
    """Of each group; and the first's in whole lines."""
    r = factors.a.shape[0]
    return r, factors.ranks - r, rounded_up(r, LANES)
