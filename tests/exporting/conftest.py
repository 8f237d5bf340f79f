"""Finished runs made to order: a config and a saved adapter whose values are as training would leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import get_peft_model

import tombola  # noqa: F401  registers the tuners
from tombola.models import Host, load_host
from tombola_cli.config.compose import compose

TARGETS = {"tiny_roberta": ["query", "value"], "tiny_llama": ["q_proj", "v_proj"]}


def host_of(config: dict[str, Any]) -> Host:
    return load_host(config["model"], kind=config["task"]["kind"], labels=config["task"]["labels"], seed=config["seed"])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=words()).logits


def words() -> torch.Tensor:
    return torch.randint(5, 250, (3, 9), generator=torch.Generator().manual_seed(1))


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Everything that is trained, the head included, gets content."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, torch.Tensor]]:
    """`finished(name, peft_config, model)` is (folder of the run, answers of the trained model)."""
    runs = tmp_path_factory.mktemp("runs")
    made: dict[str, tuple[Path, torch.Tensor]] = {}

    def make(name: str, adapter: peft.PeftConfig, model: str = "tiny_roberta") -> tuple[Path, torch.Tensor]:
        if name not in made:
            config = compose([f"model={model}", "task=textual_digits", "method=bola", "training=smoke"])
            config["method"]["name"] = name
            host = host_of(config)
            adapter.task_type = host.task_type
            net = shaken(get_peft_model(host.net, adapter))
            net.save_pretrained(runs / name / "adapter", save_embedding_layers=False)
            (runs / name / "config.json").write_text(json.dumps({**config, "command": ["train.py", f"method={name}"]}))
            made[name] = runs / name, logits(net)
        return made[name]

    return make
