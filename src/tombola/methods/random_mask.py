"""A fixed random mask: a drawn share of each weight's entries is trained, and nothing else.

python train.py method=random_mask
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from tombola.methods.sparse import SparseMethod, attach

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class RandomMask(SparseMethod):
    """Draw `config.density` (or `count`) of each target's entries without replacement, and train these alone.

    Xu and Zhang (2024, arXiv 2405.02596) start at zero and find that the smaller the mask, the larger the learning
    rate it needs, far above that of full fine-tuning: sweep it for each density. RIGSA's baseline of this name has a
    gate and a random start: with `gate=true` and `delta_init=kaiming` it is RIGSA's last round on a mask that was only
    drawn.
    """

    def __post_init__(self) -> None:
        if self.config.support != "random":
            raise ValueError(f"A random mask needs support=random in its config. Got support={self.config.support}.")

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter."""
        model = attach(host, self.config, seed=self.seed)
        trainer.train(model, phase="train")
        return model
