"""A tiny decoder through the real trainer, for methods that choose their entries by gradients while they train.

All rows are equally long, so that the mean over a batch's tokens is the mean over its rows' losses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from tombola.adapters import sparse_layers
from tombola.models import Host
from tombola.training import AcceleratedTrainer, Settings

TARGETS = ["q_proj", "v_proj", "down_proj"]
STEPS_PER_EPOCH, EPOCHS = 4, 3
TOTAL = STEPS_PER_EPOCH * EPOCHS


def host(dtype: torch.dtype = torch.float32) -> Host:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0}
        net = LlamaForCausalLM(LlamaConfig(**shape, **heads)).to(dtype).eval().requires_grad_(False)
    return Host(net=net, processor=None, role="decoder", task_type="CAUSAL_LM", head=(), name="tiny/llama")


def rows() -> list[dict[str, Any]]:
    ids = torch.randint(3, 32, (2 * STEPS_PER_EPOCH, 10), generator=torch.Generator().manual_seed(5)).tolist()
    return [{"input_ids": one, "labels": one} for one in ids]


def trainer(folder: Path, **settings: Any) -> AcceleratedTrainer:
    """Two rows a step, a rate that falls to 0 over the whole training."""
    options = {"epochs": EPOCHS, "batch_size": 2, "lr": 1e-2, "schedule": "linear", **settings}
    return AcceleratedTrainer(settings=Settings(**options), rows=rows(), run_dir=folder, pad_token_id=0)


def batches(real: AcceleratedTrainer) -> list[list[int]]:
    """The rows of every optimizer batch of the training, in their drawn order."""
    return [real.feed._rows("train", step, ()) for step in range(TOTAL)]


class Watched:
    """The real trainer; it keeps what each phase began and ended with, by phase, and can die in one of them."""

    def __init__(self, real: AcceleratedTrainer, dies_in: tuple[str, int] | None = None) -> None:
        self.real, self.dies_in = real, dies_in
        self.begun: dict[str, Snapshot] = {}
        self.ended: dict[str, Snapshot] = {}
        self.notes: list[tuple[str, dict[str, float]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def train(self, model: nn.Module, *, phase: str, hooks: Any = (), **options: Any) -> Any:
        self.begun[phase] = Snapshot.of(model)
        dying = [Death(self.dies_in[1])] if self.dies_in and self.dies_in[0] == phase else []
        history = self.real.train(model, phase=phase, hooks=[*hooks, *dying], **options)
        self.ended[phase] = Snapshot.of(model)
        return history

    def note(self, phase: str, numbers: dict[str, float]) -> None:
        self.notes.append((phase, numbers))
        self.real.note(phase, numbers)


@dataclass
class Snapshot:
    """The layers at one moment, by path: their supports, their values' parameters, whether values wait."""

    support: dict[str, Tensor] = field(default_factory=dict)
    parameter: dict[str, nn.Parameter] = field(default_factory=dict)
    waits: set[bool] = field(default_factory=set)

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        layers = sparse_layers(model)
        return cls(
            {path: layer.support("default").clone() for path, layer in layers.items()},
            {path: layer.sparse_delta_values["default"].weight for path, layer in layers.items()},
            {"default" in layer.sparse_delta_waiting for layer in layers.values()},
        )


class Death(Exception):
    """A hook that ends the work as a kill does: nothing is saved on the way out."""

    def __init__(self, step: int) -> None:
        super().__init__("killed")
        self.step = step

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step == self.step:
            raise self


def state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the adapter's tensors."""
    return {name: value.clone() for name, value in model.state_dict().items() if "sparse_delta" in name}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two such dictionaries are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def double(attach: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`attach` with the whole model in float64, for comparisons to 1e-10."""
    return lambda *args, **options: attach(*args, **options).double()
