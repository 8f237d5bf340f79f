"""Base layer and delta in one dense product, with the delta written into the base weight for its duration.

In forward, and again in backward, weight + delta is written into the weight's own storage at the selected blocks, one
dense product is run, and the saved original values are put back: bit for bit, so nothing drifts.

Precision: weight + delta is rounded to the dtype of the product. In float32 that is the additive way but for rounding;
in bfloat16 a change below half a unit in the last place of a weight (2^-9 of it) is lost in forward, as in a merged
bfloat16 model. The gradients of scores and values do not see that rounding.

Not for weights that are quantised, partitioned, trained too, or read by another thread at the same time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.adapters.ops.gradients import adapter_gradients
from tombola.adapters.ops.lines import block_lines
from tombola.adapters.ops.precision import autocast_dtype, without_autocast
from tombola.adapters.ops.selection import Draw, draw_blocks


@torch.compiler.disable
def bola_borrowed(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, "out"] | None,
    scores: Float[Tensor, "k n m"],
    values: Float[Tensor, "k r c"],
    alpha: float,
    magnitude: str,
) -> Float[Tensor, "*batch out"]:
    """The layer with its delta applied to x, in the dtype of the base layer's output; the weight gets no gradient."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return _Borrowed.apply(x, weight, bias, scores, values, alpha, magnitude, weight.dtype)
    with without_autocast(x.device.type):
        bias = None if bias is None else bias.to(dtype)
        return _Borrowed.apply(x.to(dtype), weight, bias, scores, values, alpha, magnitude, dtype)


class _Borrowed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scores: Tensor,
        values: Tensor,
        alpha: float,
        magnitude: str,
        dtype: torch.dtype,
    ) -> Tensor:
        draw = draw_blocks(scores, alpha, magnitude)
        lines = block_lines(draw.from_output, draw.from_input, values.shape[1], draw.grid[0])
        ctx.save_for_backward(x, values, lines, *draw[:5])
        ctx.weight, ctx.dtype = weight, dtype  # the weight is not saved: it is written to before backward asks for it
        ctx.rest = draw[5:]
        with borrowed(weight, dtype, values, draw, lines) as whole:
            return nn.functional.linear(x, whole, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Unpacked before the weight is borrowed: under gradient checkpointing this runs the layer's forward again.
        x, values, lines, *drawn = ctx.saved_tensors
        draw = Draw(*drawn, *ctx.rest)
        flat_grad = grad.reshape(-1, grad.shape[-1])
        needs = ctx.needs_input_grad
        for_x = None
        with without_autocast(grad.device.type):
            if needs[0]:
                with borrowed(ctx.weight, ctx.dtype, values, draw, lines) as whole:
                    for_x = (flat_grad @ whole).view_as(x)
            for_scores, for_values = adapter_gradients(x.reshape(-1, x.shape[-1]), flat_grad, values, draw, needs[3:5])
        for_bias = flat_grad.sum(0) if needs[2] else None
        return for_x, None, for_bias, for_scores, for_values, None, None, None


@contextmanager
def borrowed(
    weight: Float[Tensor, "out in"],
    dtype: torch.dtype,
    values: Float[Tensor, "k r c"],
    draw: Draw,
    lines: Int[Tensor, "k_times_r"],
) -> Iterator[Float[Tensor, "out in"]]:
    """weight + delta: in the weight's own storage, put back on leaving, or in a copy of another dtype or layout."""
    # `.data` has a version counter of its own, so autograd nodes that saved the weight (a tied head) are not refused
    # in backward: to them it never changed.
    whole = weight.data.to(dtype).contiguous()
    storage = whole.view(-1, values.shape[2])
    originals = storage.index_select(0, lines)
    delta = draw.totals(values * draw.factors[:, None, None]).view_as(originals)
    try:
        storage.index_copy_(0, lines, (originals + delta).to(dtype))
        yield whole
    finally:
        storage.index_copy_(0, lines, originals)
