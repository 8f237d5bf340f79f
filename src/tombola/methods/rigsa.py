"""RIGSA, Random Initialization of Gated Sparse Adapters (Retault and Berreby, 2025, arXiv 2511.01794).

python train.py method=rigsa
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from tombola.adapters import SparseDeltaLinear, sparse_layers
from tombola.methods.dense_first import ADAPTER, Layers, beside_delta, entries, put_back, values_of
from tombola.methods.sparse import SparseMethod, attach
from tombola.tickets import draw, sign_stable

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

ROUNDS = "rigsa_rounds"


@dataclass(frozen=True)
class Rigsa(SparseMethod):
    """Train a gated random delta, prune it by sign and magnitude, rewind what stays to its start, and train again.

        D0 = random, from the seed; every entry is free
        for t = 0 .. n_prunings:
            D = D0 on the free entries, gate = gate_init; train W + gate * D with a fresh optimizer and schedule
            after the last round: done
            stable = the free entries with sign(D) = sign(D0), D not 0
            free   = of stable, those with the largest |D|

    `config` has a full support, a gate and a random `delta_init`; a new head is rewound with the delta.
    The readings where the paper is silent or says two things:
    - `keep_of_stable`: the paper's 80 % is what is kept of the stable, layer by layer rounded down. Its 3.46 % after
      five prunings is then an outcome of how many signs flip. `target_density`, the share of all entries that is free
      after the last pruning, makes it a setting: each pruning keeps the same share of the free entries, the stable with
      the largest |D|, and it is a ValueError where fewer are stable.
    - `rank_scope`: `per_layer` ranks |D| within each layer, as in Zhou et al. (2019); `global` ranks |gate * D| over
      the model, since the gates differ from layer to layer.
    - `rewind_gate`: whether a round starts with the gate at `gate_init` or where the last one left it.
    """

    n_prunings: int = 5
    keep_of_stable: float = 0.8
    target_density: float | None = None
    rank_scope: Literal["per_layer", "global"] = "per_layer"
    rewind_gate: bool = True

    def __post_init__(self) -> None:
        _check(self)

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter; `round-0` to `round-<n_prunings>` are phases of the trainer."""
        model = attach(host, self.config, seed=self.seed)
        head = beside_delta(model)
        layers = sparse_layers(model)
        rounds = model.__dict__[ROUNDS] = []  # no part of the model: no checkpoint is to see it
        for number in range(self.n_prunings + 1):
            phase = f"round-{number}"
            trainer.train(model, phase=phase)
            rounds.append(measured(layers))
            trainer.note(phase, rounds[-1])
            if number < self.n_prunings:
                self.prune(layers, number + 1)
                put_back(model, head)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        """The adapter, and `ticket.json` with the density and the flip rate of each round, for the record."""
        super().save(model, folder)
        if ROUNDS in model.__dict__:
            text = json.dumps({"rounds": model.__dict__[ROUNDS]}, indent=1)
            (folder / "ticket.json").write_text(f"{text}\n", encoding="utf-8")

    @torch.no_grad()
    def prune(self, layers: Layers, number: int) -> None:
        """The `number`-th pruning, from 1, and the rewinding. One layer at a time has its start in memory."""
        alone: list[Layers] = [{path: layer} for path, layer in layers.items()]
        for group in [layers] if self.rank_scope == "global" else alone:
            stable = {path: stable_entries(layer) for path, layer in group.items()}
            budget = self.budget(group, sum(int(mask.sum()) for mask in stable.values()), number)
            scores = {path: self.score(layer) for path, layer in group.items()}
            for path, places in draw(scores, budget, scope="model", within=stable).items():
                layer = group[path]
                index = layer.support(ADAPTER)[places]
                layer.set_support(ADAPTER, index, layer.start_values(ADAPTER)[index.cpu()])
                if self.rewind_gate:
                    gate_of(layer).fill_(self.config.gate_init)

    def budget(self, group: Layers, stable: int, number: int) -> int:
        """How many of the layers' stable entries stay."""
        if self.target_density is None:
            return int(self.keep_of_stable * stable)
        wanted = round(self.target_density ** (number / self.n_prunings) * entries(group))
        if wanted > stable:
            raise ValueError(
                f"RIGSA's pruning {number} is to leave {wanted} entries of {', '.join(group)} for "
                f"target_density={self.target_density}, but only {stable} kept their sign: lower training.lr, raise "
                "n_prunings, or set target_density=null and let keep_of_stable decide."
            )
        return wanted

    def score(self, layer: SparseDeltaLinear) -> Tensor:
        """(entries,) |D|, or under `rank_scope=global` |gate * D|."""
        values = values_of(layer).abs()
        return values * gate_of(layer).abs() if self.rank_scope == "global" else values


def stable_entries(layer: SparseDeltaLinear) -> Tensor:
    """(entries,) whether each free entry has the sign that it started with; one that ends at 0 has not."""
    start = layer.start_values(ADAPTER)[layer.support(ADAPTER).cpu()]
    values = values_of(layer)
    return sign_stable(values, start.to(values.device))


def measured(layers: Layers) -> dict[str, float]:
    """Of a round: the share of all entries that was free in it, and the share of these that left its start's sign."""
    free = sum(layer.support(ADAPTER).numel() for layer in layers.values())
    stable = sum(int(stable_entries(layer).sum()) for layer in layers.values())
    return {"density": free / entries(layers), "flip_rate": 1 - stable / free if free else 0.0}


def gate_of(layer: SparseDeltaLinear) -> Tensor:
    """The layer's gate."""
    return cast(Tensor, layer.sparse_delta_gate[ADAPTER].weight).detach()


def _check(method: Rigsa) -> None:
    config = method.config
    if config.support != "full" or not config.gate or config.delta_init == "zeros" or config.structure != "element":
        raise ValueError(
            "RIGSA prunes a dense, gated, random delta entry by entry: its config needs support=full, gate=true, "
            f"delta_init=kaiming or normal and structure=element. Got support={config.support}, gate={config.gate}, "
            f"delta_init={config.delta_init}, structure={config.structure}."
        )
    if method.rank_scope not in ("per_layer", "global"):
        raise ValueError(f"rank_scope must be per_layer or global. Got {method.rank_scope!r}.")
    if method.n_prunings < 0:
        raise ValueError(f"n_prunings must be 0 or more. Got {method.n_prunings}.")
    for name in ("keep_of_stable", "target_density"):
        share = getattr(method, name)
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"{name} is a share above 0 and at most 1. Got {share}.")
