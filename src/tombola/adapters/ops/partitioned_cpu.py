"""A partitioned LoRA's small products on a CPU in compiled code (`partitioned_cpu.c`), in float32.

What is a dense product with the first group's A stays torch's. Results are the same bits for any number of threads.
"""

import ctypes

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.adapters.ops.compiled import LANES, ROWS, SPAN, call, numbers
from tombola.adapters.ops.joined import Factors, Partition


class _Partitioned(ctypes.Structure):
    _fields_ = [
        *numbers("x", "grad", "inner", "a", "b", "minor_a", "minor_b", "rows", "minor_rows"),
        *numbers("tokens", "in", "out", "major", "minor", "r", "r_minor", "lanes", "threads"),
        ("scale", ctypes.c_double),
        ("minor_scale", ctypes.c_double),
    ]


def partitioned_forward(
    x: Float[Tensor, "t in"], inner: Float[Tensor, "t r"], factors: Factors, partition: Partition
) -> tuple[Float[Tensor, "t R"], Float[Tensor, "out R"]]:
    """x times both groups' A, of which `inner` is the first group's; and both B, scaled, each row at its place."""
    ranks = factors.ranks
    joined, outer = torch.empty(x.shape[0], ranks), torch.empty(partition.out_features, ranks)
    _call("partitioned_forward", joined, outer, given=(x, None, inner), factors=factors, partition=partition)
    return joined, outer


def partitioned_backward(
    x: Float[Tensor, "t in"],
    grad: Float[Tensor, "t out"],
    inner: Float[Tensor, "t r"],
    factors: Factors,
    partition: Partition,
) -> tuple[Float[Tensor, "t R"], Float[Tensor, "R in"], Factors]:
    """grad times both B, scaled; both A; the gradients of the factors but the first group's A, whose place is empty."""
    tokens, out_features, ranks, r = x.shape[0], grad.shape[1], factors.ranks, factors.a.shape[0]
    lanes, r_minor, major = -(-r // LANES) * LANES, ranks - r, factors.b.shape[0]
    through, whole_a = torch.empty(tokens, ranks), torch.empty(ranks, x.shape[1])
    for_b, for_minor_a = torch.empty(factors.b.shape), torch.empty(r_minor, x.shape[1])
    for_minor_b = torch.empty(partition.minor_rows.numel(), r_minor)
    in_tokens = (ROWS + SPAN) * (2 * lanes + r_minor) + ROWS * out_features
    room = torch.empty(major * (2 * lanes + 1) + 2 * out_features * r_minor + in_tokens)
    results = (through, whole_a, for_b, for_minor_a, for_minor_b, room)
    _call("partitioned_backward", *results, given=(x, grad, inner), factors=factors, partition=partition)
    return through, whole_a, Factors(through[:0], for_b, for_minor_a, for_minor_b)


def _call(
    function: str,
    *results: Tensor,
    given: tuple[Tensor, Tensor | None, Tensor],
    factors: Factors,
    partition: Partition,
) -> None:
    held = [None if one is None else one.contiguous() for one in (*given, *factors, *partition[:2])]
    addresses = [0 if one is None else one.data_ptr() for one in held]
    r = factors.a.shape[0]
    sizes = (*given[0].shape, partition.out_features, partition.rows.numel(), partition.minor_rows.numel())
    ranks = (r, factors.ranks - r, -(-r // LANES) * LANES)
    call(function, *results, _Partitioned(*addresses, *sizes, *ranks, torch.get_num_threads(), *partition.scales))
