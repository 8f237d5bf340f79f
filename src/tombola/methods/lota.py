"""LoTA, Lottery Ticket Adaptation (Panda et al., 2024, arXiv 2406.16797).

python train.py method=lota
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from tombola.adapters import sparse_layers
from tombola.methods.dense_first import (
    ADAPTER,
    ScaledRate,
    beside_delta,
    check_dense_start,
    entries,
    most_changed,
    put_back,
)
from tombola.methods.sparse import SparseMethod, attach

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class Lota(SparseMethod):
    """Fine-tune the targets, keep the entries that moved most, and train these again from the start.

        tau  = what full fine-tuning of the target weights adds to them
        free = the (1 - sparsity) share of all target entries with the largest |tau|: one threshold for the model
        rewind to tau = 0, and a new head to its start; train the free entries with a fresh optimizer

    `config` has a full support and starts at zero. `dense_epochs` is the first phase's length (None:
    `training.epochs`), `dense_lr_factor` multiplies its learning rates.

    Differences from the authors' code: the deltas are float32 and kept apart from the weights, so that weight decay
    pulls to the pretrained weights and not to zero; the first phase trains the targets and the head alone; the code's
    RMSprop is `training.optimizer=rmsprop`, and its clipping of each parameter by itself is left out.
    """

    sparsity: float = 0.9
    dense_epochs: float | None = None
    dense_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        check_dense_start(self.config, "LoTA")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is a share of at least 0 and below 1. Got {self.sparsity}.")

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter, after the phases `dense` and `sparse`."""
        model = attach(host, self.config, seed=self.seed)
        layers, head = sparse_layers(model), beside_delta(model)
        trainer.train(model, phase="dense", epochs=self.dense_epochs, hooks=[ScaledRate(self.dense_lr_factor)])
        kept = round((1 - self.sparsity) * entries(layers))
        for path, index in most_changed(layers, kept).items():
            layers[path].set_support(ADAPTER, index, torch.zeros(index.numel()))
        put_back(model, head)
        trainer.train(model, phase="sparse")
        return model
