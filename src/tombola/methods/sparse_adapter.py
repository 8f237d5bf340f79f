"""Sparse adapters for scalable merging (Arnob et al., 2025, arXiv 2507.07140), by element or by block.

python train.py method=sparse_adapter
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tombola.adapters import SparseDeltaConfig
from tombola.methods.sparse import SparseMethod, attach
from tombola.methods.sparse_search import Search
from tombola.tickets import SCORES
from tombola.training import Window

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

WHOLE = "train"
UNITS = ("optimizer_step", "micro_batch")


@dataclass(frozen=True)
class SparseAdapter(SparseMethod):
    """Train a dense delta, draw the entries or tiles to keep by a score, go on with them, draw again; then freeze them.

        What = 0, M = 1
        for each optimizer step: train What where M = 1
            in the first `mask_epochs`, every `mask_update_every`:
                g = gradient at W + What, all values awake, on the step's batch and after the step
                M = the kr share of each layer's entries with the largest score

    `score` is `mcs` (What * g, the paper's), `cs` (|What * g|), `gm` (|g|), `wm` (|What|), `gd` (random at first, then
    the smallest |What| make room for the largest |g|; a share 0.2 (1 - step / steps) of the ticket) or `neg_mcs`. Tiles
    are scored by their sums. MCS is as published, with its sign: it keeps values that the batch wants to shrink and
    whose removal would lower the loss to first order, which is not what the paper argues for (values whose gradients
    agree over time have What * g < 0 under plain gradient descent); `neg_mcs` is that argument.

    Until the first draw the training is dense. It is drawn at the end of the `mask_epochs`, or of a shorter training,
    where `mask_update_every` would come later: what is saved is always sparse. What is drawn out waits with its value
    until the last draw, and goes on from there when it is drawn in again; its moments then start at 0.

    `mask_update_unit=micro_batch` is the released code, which counts micro-batches of one row, `micro_batches` to an
    optimizer step, and takes the gradient on one row. There a draw may fall into an accumulation; here it comes with
    the first step that is due. `score_rows` is how many rows of the batch the gradient is taken on (None: one under
    `micro_batch`, else all).

    `layer_drop` (Eq. 5-6): layers with few of the model's best entries are empty until the next draw. Each draw then
    begins a phase of its own, for the sizes change.

    `config.density` is `kr`. Differences from the released code: exact counts where scores are equal, contiguous tiles
    where its are strided for layers that are not square, moments cleared for what is drawn in again, GD as RigL means
    it.
    """

    score: str = "mcs"
    kr: float = 0.1
    mask_update_every: int = 100
    mask_update_unit: str = "optimizer_step"
    micro_batches: int = 16
    mask_epochs: float = 1
    score_rows: int | None = None
    layer_drop: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter, after the phases `dense`, `search` (or `search-1`, ...) and `train`."""
        dense = copy.copy(self.config)
        dense.density, dense.support = None, "full"
        model = attach(host, dense, seed=self.seed)
        total, draws = trainer.total_steps(), self.draws(trainer)
        search = self.search(model, trainer, draws)
        moments = _train(trainer, model, "dense", (0, draws[0], total))
        moments = search.between("dense", draws[0], moments)
        if self.layer_drop:
            for number, (first, last) in enumerate(itertools.pairwise(draws), start=1):
                moments = _train(trainer, model, f"search-{number}", (first, last, total), moments)
                moments = search.between(f"search-{number}", last, moments)
        else:
            moments = _train(trainer, model, "search", (draws[0], draws[-1], total), moments, hooks=[search])
        search.end()
        _train(trainer, model, "train", (draws[-1], total, total), moments)
        return model

    def draws(self, trainer: Trainer) -> list[int]:
        """After how many optimizer steps tickets are drawn, ascending; at least one."""
        steps = min(math.ceil(self.mask_epochs * trainer.steps_per_epoch), trainer.total_steps())
        each = self.micro_batches if self.mask_update_unit == "micro_batch" else 1
        due = [step * each // self.mask_update_every for step in range(steps + 1)]
        return [step for step in range(1, steps + 1) if due[step] > due[step - 1]] or [steps]

    def search(self, model: nn.Module, trainer: Trainer, draws: Sequence[int]) -> Search:
        """The search that the settings say."""
        one_row = self.mask_update_unit == "micro_batch" and self.score_rows is None
        return Search(
            model=model,
            trainer=trainer,
            config=self.config,
            score=self.score,
            whole=WHOLE,
            total=trainer.total_steps(),
            draws=draws,
            rows=1 if one_row else self.score_rows,
            layer_drop=self.layer_drop,
            seed=self.seed,
        )


def _train(
    trainer: Trainer,
    model: nn.Module,
    phase: str,
    steps: tuple[int, int, int],
    moments: Mapping[str, Tensor] | None = None,
    hooks: Sequence[Any] = (),
) -> dict[str, Tensor]:
    """One piece, first to last of all `steps`, of the one training; the optimizer's state after it."""
    first, last, total = steps
    if first == last:
        return dict(moments or {})
    goes_on = last < total
    window = Window(WHOLE, first, total)
    trainer.train(
        model, phase=phase, steps=last - first, hooks=hooks, window=window, optimizer=moments, keep_optimizer=goes_on
    )
    return trainer.optimizer_state(phase) if goes_on else {}


def _check(method: SparseAdapter) -> None:
    config: SparseDeltaConfig = method.config
    if config.density != method.kr or config.support != "random" or config.gate or config.delta_init != "zeros":
        raise ValueError(
            "A sparse adapter's config needs density equal to kr, support=random, gate=false and delta_init=zeros. Got "
            f"density={config.density} with kr={method.kr}, support={config.support}, gate={config.gate}, "
            f"delta_init={config.delta_init}."
        )
    if method.score not in (*SCORES, "gd"):
        raise ValueError(f"score must be one of {', '.join((*SCORES, 'gd'))}. Got {method.score!r}.")
    if method.mask_update_unit not in UNITS:
        raise ValueError(f"mask_update_unit must be one of {', '.join(UNITS)}. Got {method.mask_update_unit!r}.")
    if method.layer_drop and method.score == "gd":
        raise ValueError("layer_drop compares all entries' scores, and gd gives none: choose one of the two.")
    for name in ("mask_update_every", "micro_batches", "score_rows"):
        if getattr(method, name) is not None and getattr(method, name) < 1:
            raise ValueError(f"{name} must be at least 1. Got {getattr(method, name)}.")
    if not method.mask_epochs > 0:
        raise ValueError(f"mask_epochs must be above 0. Got {method.mask_epochs}.")
