"""SIFT, Sparse Increment Fine-Tuning (Song et al., 2024, arXiv 2312.11875).

python train.py method=sift
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tombola.adapters import sparse_layers
from tombola.methods.sparse import ADAPTER, SparseMethod, attach
from tombola.tickets import top_k

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class Sift(SparseMethod):
    """Take the entries with the largest gradient on the first batch, and train their increments from zero.

        G = gradient at W on the first batch; no step is made on it
        support = of each target the n largest |G|, n = min(floor(rate * entries) + 1, entries)
        train the increments there, with a new head

    `config.density` is the rate. Differences from the authors' code: it adds the increments to the weights after each
    step and sets them back to zero, so that its weight decay does nothing, here they are kept apart and decay pulls
    them to zero: to the pretrained weights; and the first batch, which only scored, is trained on as well.
    """

    def __post_init__(self) -> None:
        config = self.config
        if config.density is None or config.structure != "element" or config.gate or config.delta_init != "zeros":
            raise ValueError(
                "SIFT trains single entries from zero: its config needs a density, structure=element, gate=false and "
                f"delta_init=zeros. Got density={config.density}, structure={config.structure}, gate={config.gate}, "
                f"delta_init={config.delta_init}."
            )

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter."""
        model = attach(host, self.config, seed=self.seed)
        layers, supports = sparse_layers(model), dict[str, Tensor]()

        def choose(path: str, gradient: Tensor) -> None:
            count = min(layers[path].count(ADAPTER) + 1, gradient.numel())
            supports[path] = top_k(gradient.abs().flatten(), count)

        model.train()  # with dropout, as in training
        trainer.dense_gradients(model, layers, choose, phase="train", step=0)
        for path, support in supports.items():
            layers[path].set_support(ADAPTER, support, torch.zeros(support.numel()))
        trainer.train(model, phase="train")
        return model
