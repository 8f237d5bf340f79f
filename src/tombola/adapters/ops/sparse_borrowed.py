"""Base layer and sparse delta in one dense product: weight + delta, in the weight's own storage or rebuilt.

As `bola_borrowed`: in forward, and again in backward, weight + delta is written into the weight's storage at the
support, one dense product is run, and the saved originals are put back bit for bit. A full support has nothing to
spare, so its sum is built beside the weight and freed. The same precision, and the same limits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.adapters.ops.precision import autocast_dtype, without_autocast
from tombola.adapters.ops.sparse_cpu import compiled, lend_tiles, restore_tiles, with_elements
from tombola.adapters.ops.sparse_gradients import sparse_gradients
from tombola.adapters.ops.sparse_support import Support, in_lines, put, scaled, scattered


@torch.compiler.disable
def sparse_borrowed(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, "out"] | None,
    values: Float[Tensor, "u *tile"],
    gate: Float[Tensor, "1"] | None,
    support: Support,
    scale: float,
) -> Float[Tensor, "*batch out"]:
    """The layer with its delta applied to x, in the dtype of the base layer's output; the weight gets no gradient."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return _Borrowed.apply(x, weight, bias, values, gate, *support, scale, weight.dtype)
    with without_autocast(x.device.type):
        bias = None if bias is None else bias.to(dtype)
        return _Borrowed.apply(x.to(dtype), weight, bias, values, gate, *support, scale, dtype)


class _Borrowed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        values: Tensor,
        gate: Tensor | None,
        index: Tensor | None,
        shape: tuple[int, int],
        block: int,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, values, gate, index)
        ctx.weight = weight  # not saved: it is written to before backward asks for it
        ctx.rest = (shape, block, scale, dtype)
        with borrowed(weight, dtype, values, gate, scale, Support(index, shape, block)) as whole:
            return nn.functional.linear(x, whole, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Unpacked before the weight is borrowed: under gradient checkpointing this runs the layer's forward again.
        x, values, gate, index = ctx.saved_tensors
        shape, block, scale, dtype = ctx.rest
        support = Support(index, shape, block)
        flat_x, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        needs = ctx.needs_input_grad
        for_x = None
        with without_autocast(grad.device.type):
            if needs[0]:
                with borrowed(ctx.weight, dtype, values, gate, scale, support) as whole:
                    for_x = (flat_grad @ whole).view_as(x)
            for_values, for_gate = sparse_gradients(flat_x, flat_grad, values, gate, scale, support, needs[3:5])
        for_bias = flat_grad.sum(0) if needs[2] else None
        return for_x, None, for_bias, for_values, for_gate, None, None, None, None, None


@contextmanager
def borrowed(
    weight: Float[Tensor, "out in"],
    dtype: torch.dtype,
    values: Float[Tensor, "u *tile"],
    gate: Float[Tensor, "1"] | None,
    scale: float,
    support: Support,
) -> Iterator[Float[Tensor, "out in"]]:
    """weight + delta: in the weight's own storage, put back on leaving, or in a copy of another dtype or layout."""
    delta = scaled(values, gate, scale)
    if support.index is None:
        yield (weight + scattered(delta, support)).to(dtype)
        return
    # `.data` has a version counter of its own, so autograd nodes that saved the weight (a tied head) are not refused
    # in backward: to them it never changed.
    whole = weight.data.to(dtype).contiguous()
    if compiled(whole, delta, support):
        with _lent(whole, delta, support) as sum_of_both:
            yield sum_of_both
        return
    storage, lines = in_lines(whole, support.block), support.lines()
    originals = storage.index_select(0, lines)
    try:
        put(storage, lines, (originals + delta.view_as(originals)).to(dtype))
        yield whole
    finally:
        put(storage, lines, originals)


@contextmanager
def _lent(whole: Float[Tensor, "out in"], delta: Float[Tensor, "u *tile"], support: Support) -> Iterator[Tensor]:
    """The same in compiled code, which makes a copy for elements: these lie in nearly every line of the weight."""
    if support.block == 1:
        yield with_elements(whole, delta, support)
        return
    saved = lend_tiles(whole, delta, support)
    try:
        yield whole
    finally:
        restore_tiles(whole, saved, support)
