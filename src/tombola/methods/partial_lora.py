"""Partial-LoRA and Targeted-LoRA (Damirchi et al., 2025, arXiv 2512.22495).

python train.py method=partial_lora
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn

from tombola.adapters import MaskedLoraConfig
from tombola.methods.adapter import Adapter
from tombola.methods.attach import attach
from tombola.methods.base import head_parameters, without_dropout
from tombola.methods.dense_first import ScaledRate, put_back
from tombola.methods.partial_search import SEARCH, Layers, Masked, Search, magnitudes, snip, target_layers
from tombola.tickets import Lines, leverage_scores

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

Selection = Literal["random", "targeted"]
Importance = Literal["svd", "snip", "imp"]
TICKET = "partial_lora_ticket"


@dataclass(frozen=True)
class PartialLora(Adapter):
    """Find how much of each weight a few rows need, give LoRA's factors that share, and train.

        acc0 = accuracy on the few rows of the frozen model, its new head fitted to them
        for each target W alone:
            importance of its rows and columns
            s = the last of delta, 2 delta, ... 1 at which W, its floor(s * out) least important rows and
                floor(s * in) columns zero, still has tau * acc0; 0 if none has
            B keeps out - floor(s * out) rows, A in - floor(s * in) columns, at least one of each:
                as many, drawn at random (Partial-LoRA), or the most important ones (Targeted-LoRA)
        train these with a head that starts anew

    The full text was not at hand; these are readings of its summary:
    - `importance`: `svd`, leverage scores of the leading singular vectors with `svd_energy` of the squared spectrum;
      `snip`, sums of |W * G|; `imp`, sums of |W| after `imp_steps` of training the targets on the few rows, at
      `imp_rate` times the learning rate: by magnitude, not by change.
    - `lines`: rows and columns share one s, or only one kind is taken out, and the other factor is whole.
    - The search is by bisection: where more is taken out, accuracy is assumed not to come back. It then finds what a
      search step by step would, in about log2(1 / delta) evaluations a layer.
    - The few rows are `shots` of each class, or `shots_share` of the rows where these have no class. Accuracy is the
      share of rows, of a language model the share of target tokens, predicted right.
    - `granularity=element` of the config keeps r entries at random for each row and column that would be kept.
    """

    config: MaskedLoraConfig
    selection: Selection = "random"
    importance: Importance = "svd"
    lines: Masked = "both"
    tau: float = 0.9
    delta: float = 0.05
    svd_energy: float = 0.9
    shots: int = 16
    shots_share: float = 0.02
    head_steps: int = 200
    head_rate: float = 10.0
    imp_steps: int = 50
    imp_rate: float = 0.1

    def __post_init__(self) -> None:
        _check(self)

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter. Phases: `head` if there is one, `importance` under `imp`, `train`."""
        layers = target_layers(host, self.config)
        host.net.requires_grad_(False)
        with trainer.few_shot(per_class=self.shots, share=self.shots_share):
            found = self.densities(host, layers, trainer)
        model = attach(host, self.masked(layers, found), seed=self.seed)
        ticket = model.__dict__[TICKET] = told(layers, found)  # no part of the model: no checkpoint is to see it
        numbers = {name: ticket[name] for name in ("accuracy", "evaluations")}
        trainer.note(SEARCH, {**numbers, "density": sum(ticket["densities"].values()) / len(layers)})
        trainer.train(model, phase="train")
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        """The adapter, and `ticket.json` with each layer's density, for the record."""
        super().save(model, folder)
        if TICKET in model.__dict__:
            text = json.dumps(model.__dict__[TICKET], indent=1)
            (folder / "ticket.json").write_text(f"{text}\n", encoding="utf-8")

    def densities(self, host: Host, layers: Layers, trainer: Trainer) -> dict[str, Tensor]:
        """What `Search.run` finds, once a run; the host is then what it was. Phases are asked for on a resume too."""
        start = {name: value.detach().clone() for name, value in head_parameters(host).items()}
        if host.head:
            self.fit_head(host, trainer)
        of_layers: dict[str, Lines] = {}
        if self.importance == "imp":
            of_layers = magnitudes(host.net, layers, trainer, steps=self.imp_steps, rate=self.imp_rate)
        search = Search(host.net, layers, trainer, self.lines, self.tau, self.delta)
        found = trainer.once(SEARCH, lambda: search.run(self.importances(host, layers, trainer, of_layers)))
        put_back(host.net, start)
        return found

    def fit_head(self, host: Host, trainer: Trainer) -> None:
        """Trains the head alone on the few rows: a random one would measure nothing."""
        for parameter in head_parameters(host).values():
            parameter.requires_grad_(True)
        with without_dropout(host.net):
            trainer.train(host.net, phase="head", steps=self.head_steps, hooks=[ScaledRate(self.head_rate)])
        host.net.requires_grad_(False)

    def importances(
        self, host: Host, layers: Layers, trainer: Trainer, of_layers: dict[str, Lines]
    ) -> Callable[[str], Lines]:
        """How important each row and column of the layer at a path is; leverage scores one layer at a time."""
        if self.importance == "svd":
            return lambda path: leverage_scores(layers[path].weight, self.svd_energy, seed=self.seed)
        found = of_layers or snip(host.net, layers, trainer)
        return lambda path: found[path]

    def masked(self, layers: Layers, found: dict[str, Tensor]) -> MaskedLoraConfig:
        """The config with what each layer keeps: how much, or which."""

        def kept(of: str) -> dict[str, Any]:
            masks = {path: found[f"{of}/{path}"] for path in layers}
            if self.selection == "targeted":
                return dict(masks)
            each = self.config.r if self.config.granularity == "element" else 1
            return {path: each * int(mask.sum()) for path, mask in masks.items()}

        return dataclasses.replace(self.config, kept_rows=kept("rows"), kept_cols=kept("columns"))


def told(layers: Layers, found: dict[str, Tensor]) -> dict[str, Any]:
    """For the record: accuracy of the whole model, evaluations, and the share of each layer that stays."""
    densities = {path: round(1 - float(found[f"share/{path}"]), 6) for path in layers}
    return {
        "accuracy": float(found["accuracy"]),
        "evaluations": int(found["evaluations"]),
        "densities": densities,
    }


def _check(method: PartialLora) -> None:
    config = method.config
    for name, known in (("selection", Selection), ("importance", Importance), ("lines", Masked)):
        if getattr(method, name) not in get_args(known):
            raise ValueError(f"{name} is one of {', '.join(get_args(known))}. Got {getattr(method, name)!r}.")
    if config.kept_rows != 1.0 or config.kept_cols != 1.0:
        raise ValueError("Partial-LoRA finds what is kept itself: leave kept_rows and kept_cols of its config at 1.0.")
    if method.selection == "targeted" and config.granularity != "row_col":
        raise ValueError("Targeted-LoRA keeps whole rows and columns: set granularity=row_col, or selection=random.")
    if not 0 <= method.tau <= 1:
        raise ValueError(f"tau is a share of the accuracy, from 0 to 1. Got {method.tau}.")
    for name in ("delta", "svd_energy", "shots_share"):
        if not 0 < getattr(method, name) <= 1:
            raise ValueError(f"{name} is a share above 0 and at most 1. Got {getattr(method, name)}.")
    for name in ("shots", "head_steps", "imp_steps"):
        if getattr(method, name) < 1:
            raise ValueError(f"{name} must be 1 or more. Got {getattr(method, name)}.")
