"""How far each part of each adapted weight moved: |ΔW| pooled to a grid, one layer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerMove:
    """What an adapter did to one weight."""

    cells: Float[Tensor, "out_stripes in_stripes"]  # mean |ΔW| of each cell of the grid
    moved_entries: int  # entries of ΔW that are not zero
    entries: int  # all entries of the weight
    unique_blocks: int | None = None  # distinct selected blocks (BoLA), None where a method selects none
    candidates: int | None = None  # blocks that could have been selected, BoLA's k


Moved = dict[str, LayerMove]  # by the weight's module name in the base model


@torch.no_grad()
def read_moved(model: nn.Module, grid: tuple[int, int] = (16, 16)) -> Moved:
    """The moves of the (first) active adapter; empty when the model has none.

    `grid` is (stripes of the input, stripes of the output); BoLA's own grid is used for BoLA. Only one dense ΔW
    exists at a time. For PiSSA give the saved adapter: while it trains, its ΔW counts from the residual.
    """
    moved: Moved = {}
    for name, layer, adapter in _adapted(model):
        change = weight_change(layer, adapter)
        scores = getattr(layer, "bola_scores", {})
        if adapter in scores:
            candidates, in_stripes, out_stripes = scores[adapter].weight.shape
            unique_blocks = cast(Any, layer).unique_blocks(adapter)
        else:
            (in_stripes, out_stripes), candidates, unique_blocks = grid, None, None
        cells = pool(change, out_stripes, in_stripes)
        moved[name] = LayerMove(cells, int(torch.count_nonzero(change)), change.numel(), unique_blocks, candidates)
    return moved


def weight_change(layer: nn.Module, adapter: str) -> Float[Tensor, "out in"]:
    """Dense float32 ΔW of one layer: what merging would add to the weight.

    DoRA's `get_delta_weight` is only the low-rank part of it: the new weight is m·(W + BA) / |W + BA|, row by row.
    """
    change = cast(Any, layer).get_delta_weight(adapter).detach()
    change = (change.to_dense() if change.is_sparse else change).float()
    magnitudes = getattr(layer, "lora_magnitude_vector", {})
    if adapter not in magnitudes:
        return cast(Tensor, change)
    weight = cast(Any, layer).get_base_layer().weight.detach().float()
    directions = weight + change
    scale = magnitudes[adapter].weight.detach().float() / directions.norm(dim=1)
    return cast(Tensor, scale.unsqueeze(1) * directions - weight)


def pool(change: Float[Tensor, "out in"], out_stripes: int, in_stripes: int) -> Float[Tensor, "rows columns"]:
    """Mean |ΔW| of each cell, on the CPU; no more stripes than the weight has rows or columns."""
    shape = (min(out_stripes, change.shape[0]), min(in_stripes, change.shape[1]))
    return F.adaptive_avg_pool2d(change.abs().unsqueeze(0), shape).squeeze(0).cpu()


def summarise(moved: Moved) -> dict[str, Any]:
    """The record's `ticket`, in all and by layer; empty for a model without an adapter.

    `moved_share` is the share of entries that are not what they were. For BoLA also `unique_blocks`, and `overlap`, the
    share of the candidates that drew a block which another of the layer has drawn before.
    """
    if not moved:
        return {}
    return {**_shares(list(moved.values())), "layers": {name: _shares([move]) for name, move in moved.items()}}


def overlap(own: Moved, other: Moved) -> dict[str, float]:
    """Share of a layer's moved cells that `other` moved too, for layers that both cut in the same way.

    What sparse adapters lose when they are merged is explained by it (BoLA, section 6.2).
    """
    common = {name: (move.cells > 0, other[name].cells > 0) for name, move in own.items() if name in other}
    return {
        name: int((mine & theirs).sum()) / max(int(mine.sum()), 1)
        for name, (mine, theirs) in common.items()
        if mine.shape == theirs.shape
    }


def _shares(moves: list[LayerMove]) -> dict[str, Any]:
    shares: dict[str, Any] = {"moved_share": sum(m.moved_entries for m in moves) / sum(m.entries for m in moves)}
    blocks = [(m.unique_blocks, m.candidates) for m in moves if m.unique_blocks is not None and m.candidates]
    if len(blocks) == len(moves):
        unique, candidates = (sum(numbers) for numbers in zip(*blocks, strict=True))
        shares |= {"unique_blocks": unique, "candidates": candidates, "overlap": 1 - unique / candidates}
    return shares


def _adapted(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and hasattr(module, "get_delta_weight"):
            yield name.removeprefix("base_model.model."), cast(nn.Module, module), module.active_adapters[0]
