"""Tiny runs of the sparse methods with the real trainer, and what a plain loop over dense masked weights makes of them.

One batch holds all rows, which are equally long: the order of the data and the padding cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from transformers import RobertaConfig, RobertaForSequenceClassification

from tombola.adapters import sparse_layers
from tombola.models import Host
from tombola.training import AcceleratedTrainer, Settings

TARGETS = ["query", "value", "intermediate.dense"]
ENTRIES = 2 * (2 * 16 * 16 + 24 * 16)  # of the targets
STEPS = 4  # of a phase: one an epoch


def host(dtype: torch.dtype = torch.float32) -> Host:
    """RoBERTa, which computes in float64 throughout (Llama's norms are always float32); its head is frozen too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}
        words = {"vocab_size": 32, "max_position_embeddings": 20, "num_labels": 3, "pad_token_id": 1}
        net = RobertaForSequenceClassification(RobertaConfig(**shape, **still, **words))
    net.to(dtype).eval().requires_grad_(False)
    return Host(net=net, processor=None, role="encoder", task_type=None, head=(), name="tiny/roberta")


def batch() -> tuple[Tensor, Tensor]:
    """Tokens and classes of all rows."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(3, 32, (8, 10), generator=generator), torch.randint(0, 3, (8,), generator=generator)


def rows() -> list[dict[str, Any]]:
    ids, labels = batch()
    return [{"input_ids": row.tolist(), "label": int(label)} for row, label in zip(ids, labels, strict=True)]


def loss_of(net: nn.Module, changed: Mapping[str, Tensor]) -> Tensor:
    """The mean loss of the batch, with these weights in the places of the net's own."""
    ids, labels = batch()
    return F.cross_entropy(functional_call(net, dict(changed), kwargs={"input_ids": ids}).logits, labels)


def trainer(folder: Path, **settings: Any) -> AcceleratedTrainer:
    options = {"epochs": STEPS, "batch_size": 8, "lr": 1e-2, "schedule": "constant", "checkpoint_every": 1, **settings}
    return AcceleratedTrainer(settings=Settings(**options), rows=rows(), run_dir=folder, pad_token_id=1)


@dataclass
class Snapshot:
    """The deltas at one moment, by layer: dense values without gate, where they may be non-zero, the gates."""

    values: dict[str, Tensor]
    support: dict[str, Tensor]
    gates: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        layers = sparse_layers(model)
        gated = {path: layer for path, layer in layers.items() if "default" in layer.sparse_delta_gate}
        return cls(
            {path: layer.dense_values("default").detach().clone() for path, layer in layers.items()},
            {path: layer.support("default").clone() for path, layer in layers.items()},
            {path: layer.sparse_delta_gate["default"].weight.detach().clone() for path, layer in gated.items()},
        )

    def mask(self, path: str) -> Tensor:
        mask = torch.zeros(self.values[path].numel(), dtype=torch.bool)
        mask[self.support[path]] = True
        return mask.view_as(self.values[path])


@dataclass
class Watched:
    """The real trainer; it keeps what each phase began and ended with, and can die in one of them."""

    trainer: AcceleratedTrainer
    dies_in: tuple[str, int] | None = None  # phase, step
    begun: dict[str, Snapshot] = field(default_factory=dict)
    ended: dict[str, Snapshot] = field(default_factory=dict)
    notes: dict[str, dict[str, float]] = field(default_factory=dict)

    def train(self, model: nn.Module, *, phase: str, hooks: Sequence[Any] = (), **options: Any) -> Any:
        self.begun[phase] = Snapshot.of(model)
        dying = [Death(self.dies_in[1])] if self.dies_in and self.dies_in[0] == phase else []
        history = self.trainer.train(model, phase=phase, hooks=[*hooks, *dying], **options)
        self.ended[phase] = Snapshot.of(model)
        return history

    def note(self, phase: str, numbers: dict[str, float]) -> None:
        self.notes[phase] = numbers
        self.trainer.note(phase, numbers)


class Death(Exception):
    """A hook that ends the process's work as a kill does: nothing is saved on the way out."""

    def __init__(self, step: int) -> None:
        super().__init__("killed")
        self.step = step

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step == self.step:
            raise self


@dataclass
class Reference:
    """W + scale * gate * D with D dense and masked after every step, trained by torch's AdamW in a plain loop."""

    net: nn.Module
    weights: dict[str, str]  # layer of the adapted model: name of its weight in the net
    lr: float = 1e-2
    weight_decay: float = 0.0
    scale: float = 1.0

    def train(
        self, start: dict[str, Tensor], masks: dict[str, Tensor], gate: float | None, steps: int = STEPS
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """D and the gates after `steps` steps from D = start on the masks."""
        delta = {path: (start[path] * masks[path]).clone().requires_grad_() for path in start}
        dtype = next(iter(delta.values())).dtype
        gates = {path: torch.tensor(1.0 if gate is None else gate, dtype=dtype) for path in start}
        trained = list(delta.values())
        if gate is not None:
            trained += [one.requires_grad_() for one in gates.values()]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)
        frozen = dict(self.net.named_parameters())
        for _ in range(steps):
            changed = {
                name: frozen[name].detach() + self.scale * gates[path] * delta[path]
                for path, name in self.weights.items()
            }
            optimizer.zero_grad()
            loss_of(self.net, changed).backward()
            optimizer.step()
            with torch.no_grad():
                for path, mask in masks.items():
                    delta[path] *= mask
        return {p: d.detach() for p, d in delta.items()}, {p: g.detach() for p, g in gates.items()}


def reference(paths: Sequence[str], dtype: torch.dtype = torch.float64, **options: Any) -> Reference:
    names = {path: path.removeprefix("base_model.model.") + ".weight" for path in paths}
    return Reference(host(dtype).net, names, **options)


def double(attach: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`attach` with the whole model in float64, for comparisons to 1e-10."""
    return lambda *args, **options: attach(*args, **options).double()


def largest(scores: Tensor, count: int) -> list[int]:
    """The indices of the `count` largest, the smaller index first among equals: by sorting a list."""
    flat = scores.flatten().tolist()
    return sorted(sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:count])
