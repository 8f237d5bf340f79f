"""PiLoRA's first stage as a hook: how often, while LoRA trains, each row of a weight matters more than the average."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from tombola.adapters.whole import whole, whole_gradient
from tombola.adapters.wide import WideBuffers
from tombola.methods.sparse import ADAPTER
from tombola.tickets import above_mean, dominant_mask, row_scores

BUFFERS = "partitioned_lora_importance"


@dataclass
class Importance:
    """In every `every`-th optimizer step, from the first, each layer's row scores, from whole gradients.

    What has been counted is in buffers of the layers, so that checkpoints have it: `hits` (out,), how often a row was
    above the layer's mean, `sums` (out,), its scores added up, and `checks` (1,).
    """

    model: PeftModel
    every: int
    layers: dict[str, Any] = field(init=False)  # LoraLayer, which is no nn.Module to a type checker, by path

    def __post_init__(self) -> None:
        modules = self.model.get_base_model().named_modules()
        self.layers = {path: module for path, module in modules if isinstance(module, LoraLayer)}
        for layer in self.layers.values():
            sums = torch.zeros_like(layer.lora_B[ADAPTER].weight[:, 0]).detach()
            hits = torch.zeros_like(sums, dtype=torch.int64)
            buffers = WideBuffers(persistent=True)
            buffers.update({"hits": hits, "sums": sums, "checks": hits[:1].clone()})
            layer.add_module(BUFFERS, buffers)

    @torch.no_grad()
    def before_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        """Counts, where it is time."""
        if step % self.every:
            return
        for layer in self.layers.values():
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            with whole(a, b, dims=2) as (whole_a, whole_b):
                scores = row_scores(whole_a, whole_b, whole_gradient(a), whole_gradient(b))
            seen = counted(layer)
            seen["hits"].add_(above_mean(scores))
            seen["sums"].add_(scores)
            seen["checks"].add_(1)

    @property
    def checks(self) -> int:
        """How often it was counted. Raises ValueError for never: every such step was skipped."""
        checks = min(int(counted(layer)["checks"]) for layer in self.layers.values())
        if not checks:
            raise ValueError("PiLoRA saw no gradient in its first stage: lower check_every, or raise stage1_epochs.")
        return checks

    def dominant(self, rule: str, *, theta: float) -> dict[str, Tensor]:
        """Each layer's dominant rows, (out,) bool on the CPU, by a rule of `tombola.tickets.dominant_mask`."""
        checks = self.checks
        seen = {path: counted(layer) for path, layer in self.layers.items()}
        return {p: dominant_mask(rule, one["hits"], one["sums"], checks, theta=theta).cpu() for p, one in seen.items()}


def counted(layer: Any) -> WideBuffers:
    """The layer's buffers."""
    return cast(WideBuffers, layer.get_submodule(BUFFERS))
