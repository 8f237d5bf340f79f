"""SpIEL-AG, Sparse fine-tuning by Iterative ELimination and growth (Ansell et al., 2024, arXiv 2401.16405).

python train.py method=spiel
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from tombola.methods.sparse import SparseMethod, attach
from tombola.methods.spiel_regrow import Regrow
from tombola.tickets import drop_fraction

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class Spiel(SparseMethod):
    """Start at random entries; every `reselect_every` steps drop the smallest values, grow where gradients are largest.

        k entries of each target, values 0
        for each step, t done:
            within the first `accumulate` steps of each `reselect_every`:
                candidates = the k largest |G| in the first of them
                add up the candidates' gradients and their squares
            train the values
            after the last of them:
                drop the p * k smallest |value|, grow the p * k candidates outside with the largest |sum of gradients|
                a grown value is 0, its Adam moments are the candidate's mean gradient and mean square

    p is 1 the first time, then 0.2 (1 - t / T), or `decay=cosine` throughout. An entry that is both dropped and grown
    is left as it is. Moments are seeded so that Adam's bias correction gives the means back: with
    `training.optimizer=adamw_per_entry` a grown entry is `accumulate` steps old, under plain AdamW as old as all.

    The gradients G are those of a second forward and backward on the same batch. Left out: SpIEL-MA, whose growth
    reads SM3's row and column sums. The released code accumulates one batch more from the second time on.
    """

    reselect_every: int = 100
    accumulate: int = 5
    initial_fraction: float = 0.2
    decay: str = "linear"

    def __post_init__(self) -> None:
        config = self.config
        if config.support != "random" or config.structure != "element" or config.gate or config.delta_init != "zeros":
            raise ValueError(
                "SpIEL trains single entries from zero: its config needs support=random, structure=element, gate=false "
                f"and delta_init=zeros. Got support={config.support}, structure={config.structure}, "
                f"gate={config.gate}, delta_init={config.delta_init}."
            )
        if not 1 <= self.accumulate <= self.reselect_every:
            raise ValueError(
                "accumulate must be at least 1 and at most reselect_every. Got "
                f"accumulate={self.accumulate}, reselect_every={self.reselect_every}."
            )
        if not 0 < self.initial_fraction <= 1:
            raise ValueError(f"initial_fraction is a share above 0 and at most 1. Got {self.initial_fraction}.")
        drop_fraction(0, 1, decay=self.decay)  # knows which decays there are

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter."""
        model = attach(host, self.config, seed=self.seed)
        regrow = Regrow(model, trainer, "train", self.reselect_every, self.accumulate, self.fraction)
        with regrow.candidates_kept():
            trainer.train(model, phase="train", hooks=[regrow])
        return model

    def fraction(self, done: int, total: int) -> float:
        """The share of a ticket that changes after `done` of `total` steps."""
        if self.decay == "linear" and done == self.accumulate:
            return 1.0
        return drop_fraction(done, total, initial=self.initial_fraction, decay=self.decay)
