"""What LoTA, LT-SFT and RIGSA share: a dense phase, a choice among all entries, and the way back to the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from tombola.adapters import SparseDeltaConfig, SparseDeltaLinear
from tombola.tickets import draw

ADAPTER = "default"  # the name that PEFT gives to a model's only adapter
DELTA = ".sparse_delta_"  # in the name of every parameter of a SparseDelta adapter

Layers = Mapping[str, SparseDeltaLinear]  # by module path, in the model's order


def values_of(layer: SparseDeltaLinear) -> Tensor:
    """(entries,) the values at the support, detached."""
    return cast(Tensor, layer.sparse_delta_values[ADAPTER].weight).detach()


def entries(layers: Layers) -> int:
    """All entries of the layers' weights."""
    return sum(layer.all_units(ADAPTER) for layer in layers.values())


def most_changed(layers: Layers, count: int, among: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The `count` entries of dense deltas with the largest |value|, exactly so many over the model, by layer.

    `among` has for each layer which entries may be chosen, (entries,) bool. Equals are taken in the layers' order, then
    by index.
    """
    return draw({path: values_of(layer).abs() for path, layer in layers.items()}, count, scope="model", within=among)


def check_dense_start(config: SparseDeltaConfig, method: str) -> None:
    """Raises ValueError unless the first phase is full fine-tuning of the targets: dense, from zero, without a gate."""
    if config.support != "full" or config.gate or config.delta_init != "zeros" or config.structure != "element":
        raise ValueError(
            f"{method} begins with full fine-tuning of its targets: its config needs support=full, gate=false, "
            f"delta_init=zeros and structure=element. Got support={config.support}, gate={config.gate}, "
            f"delta_init={config.delta_init}, structure={config.structure}."
        )


def beside_delta(model: nn.Module) -> dict[str, Tensor]:
    """Copies, on the CPU, of what is trained beside the deltas: a new head's parameters, by name."""
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and DELTA not in name
    }


@torch.no_grad()
def put_back(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give the named parameters those values again."""
    parameters = dict(model.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(value)


class ScaledRate:
    """A hook that multiplies every learning rate of a phase; the log shows the rate without it."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def before_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        """After the schedule has set the step's rates."""
        for group in optimizer.param_groups:
            group["lr"] *= self.factor
