"""LT-SFT, Lottery Ticket Sparse Fine-Tuning (Ansell et al., 2022, arXiv 2110.07560).

python train.py method=lt_sft
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tombola.adapters import sparse_layers
from tombola.methods.dense_first import (
    ADAPTER,
    Layers,
    beside_delta,
    check_dense_start,
    entries,
    most_changed,
    put_back,
    values_of,
)
from tombola.methods.sparse import SparseMethod, attach

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class LtSft(SparseMethod):
    """Fine-tune everything, unfreeze what changed most, go back, and train what is unfrozen; n times.

        unfrozen = none, theta = theta_0
        for i = 0 .. n_iterations - 1:
            theta' = theta after full fine-tuning of the targets
            unfreeze the K / n_iterations frozen entries with the largest |theta' - theta_0|, over the model
            back to theta; theta = theta after training the unfrozen entries

    K is the `density` share of the targets' entries. Going back means to the values before the iteration's dense phase,
    a new head's too: from the second iteration on these are not theta_0. Each phase has a fresh optimizer and schedule;
    `dense_epochs` is the length of the dense ones (None: `training.epochs`). `config` has a full support and starts at
    zero.

    Differences from the authors' code: theta is the target weights, there every parameter but the head; its optional
    L1 penalty on theta - theta_0 in the sparse phases is left out; weight decay pulls to theta_0 and not to zero.
    """

    density: float = 0.01
    n_iterations: int = 1
    dense_epochs: float | None = None

    def __post_init__(self) -> None:
        check_dense_start(self.config, "LT-SFT")
        if not 0 < self.density <= 1:
            raise ValueError(f"density is a share above 0 and at most 1. Got {self.density}.")
        if self.n_iterations < 1:
            raise ValueError(f"n_iterations must be at least 1. Got {self.n_iterations}.")

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter, after the phases `dense-0`, `sparse-0`, `dense-1` and so on."""
        model = attach(host, self.config, seed=self.seed)
        layers = sparse_layers(model)
        unfrozen = {path: torch.empty(0, dtype=torch.int64) for path in layers}
        values = {path: torch.empty(0) for path in layers}
        for number in range(self.n_iterations):
            head = beside_delta(model)
            trainer.train(model, phase=f"dense-{number}", epochs=self.dense_epochs)
            unfreeze(layers, self.budget(layers, number), unfrozen, values)
            put_back(model, head)
            trainer.train(model, phase=f"sparse-{number}")
            if number + 1 < self.n_iterations:
                unfrozen = {path: layer.support(ADAPTER).cpu() for path, layer in layers.items()}
                values = {path: values_of(layer).cpu() for path, layer in layers.items()}
                make_dense(layers)
        return model

    def budget(self, layers: Layers, number: int) -> int:
        """How many entries the iteration unfreezes; K in all, whether or not `n_iterations` divides it."""
        total = round(self.density * entries(layers))
        return total * (number + 1) // self.n_iterations - total * number // self.n_iterations


def unfreeze(layers: Layers, count: int, unfrozen: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Take the `count` most changed entries that are frozen to the unfrozen ones, whose values are put back."""
    frozen = {path: torch.ones_like(values_of(layer), dtype=torch.bool) for path, layer in layers.items()}
    for path, index in unfrozen.items():
        frozen[path][index] = False
    for path, added in most_changed(layers, count, among=frozen).items():
        index, order = torch.cat([unfrozen[path], added.cpu()]).sort()
        start = torch.cat([values[path], values[path].new_zeros(added.numel())])
        layers[path].set_support(ADAPTER, index, start[order])


def make_dense(layers: Layers) -> None:
    """Give every layer a full support, zero where it had no entry."""
    for layer in layers.values():
        everything = torch.arange(layer.all_units(ADAPTER))
        layer.set_support(ADAPTER, everything, layer.dense_values(ADAPTER).detach().flatten())
