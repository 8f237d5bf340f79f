"""Tiny hosts and a trainer that is a plain loop, so that these tests say nothing about the real one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)


@dataclass(frozen=True)
class Host:
    """The fields of `tombola.models.Host`."""

    net: PreTrainedModel
    role: str
    task_type: str | None
    head: tuple[str, ...]
    name: str
    processor: Any = None
    provenance: dict[str, str] = field(default_factory=dict)


@dataclass
class PlainTrainer:
    """SGD for three steps on one batch; it remembers what it was asked to train."""

    batch: dict[str, torch.Tensor]
    phases: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)

    def train(self, model: torch.nn.Module, *, phase: str, **_: Any) -> None:
        self.phases.append(phase)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.trained = list(parameters)
        optimizer = torch.optim.SGD(parameters.values(), lr=0.5)
        model.train()
        for _ in range(3):
            optimizer.zero_grad()
            model(**self.batch).loss.backward()
            optimizer.step()
        model.eval()


def _llama() -> Host:
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    return Host(LlamaForCausalLM(config), "decoder", "CAUSAL_LM", (), "tiny/llama")


def _roberta() -> Host:
    config = RobertaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=20, num_labels=3, pad_token_id=1,
    )  # fmt: skip
    return Host(RobertaForSequenceClassification(config), "encoder", "SEQ_CLS", ("classifier",), "tiny/roberta")


def _vit() -> Host:
    config = ViTConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4,
        num_channels=1, num_labels=3,
    )  # fmt: skip
    return Host(ViTForImageClassification(config), "image_encoder", None, ("classifier",), "tiny/vit")


MAKERS = {"llama": _llama, "roberta": _roberta, "vit": _vit}
TARGETS = {"llama": ["q_proj", "v_proj"], "roberta": ["query", "value"], "vit": ["q_proj", "v_proj"]}


@pytest.fixture
def host_of() -> Callable[[str], Host]:
    """The same random host for the same family every time; its folder of origin is a path that must not leak."""

    def make(family: str) -> Host:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            host = MAKERS[family]()
        host.net.name_or_path = "/somewhere/cache/weights"
        host.net.eval().requires_grad_(False)
        return host

    return make


@pytest.fixture
def batch_of() -> Callable[[str], dict[str, torch.Tensor]]:
    def make(family: str) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        ids = torch.randint(2, 32, (4, 10), generator=generator)
        labels = torch.randint(0, 3, (4,), generator=generator)
        if family == "llama":
            return {"input_ids": ids, "labels": ids}
        if family == "roberta":
            return {"input_ids": ids, "labels": labels}
        return {"pixel_values": torch.randn(4, 1, 8, 8, generator=generator), "labels": labels}

    return make


@pytest.fixture
def trainer_of(batch_of: Callable[[str], dict[str, torch.Tensor]]) -> Callable[[str], PlainTrainer]:
    return lambda family: PlainTrainer(batch_of(family))


@pytest.fixture
def targets() -> dict[str, list[str]]:
    return TARGETS
