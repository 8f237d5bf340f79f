"""Who generates the texts of an evaluation: the model itself, or vLLM from the model's merged weights."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from tombola.evaluation import Writer, vllm_writer
from tombola.exporting import export
from tombola.models import Host
from tombola.tasks import Task

PLAIN_CHECKPOINT = "config.json"  # what tells a folder of transformers from one of PEFT


def by_vllm(config: Mapping[str, Any], task: Task) -> bool:
    """Whether the config asks for vLLM, and its task for texts."""
    return config.get("evaluation", {}).get("generate") == "vllm" and task.answers_by == "generate"


def evaluation_device(config: Mapping[str, Any], task: Task, device: torch.device) -> str:
    """Where the saved model is loaded: not on the GPU that vLLM is to fill."""
    if not by_vllm(config, task):
        return str(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return "cpu"


@contextmanager
def writer(
    config: Mapping[str, Any], task: Task, model: nn.Module, host: Host, saved: Path, folder: Path
) -> Iterator[Writer | None]:
    """What generates in the model's stead; None: nothing does. `folder` is the run's."""
    if not by_vllm(config, task):
        yield None
        return
    with vllm_writer(
        plain_checkpoint(config, model, host, saved, folder),
        python=config["evaluation"]["vllm_python"] or sys.executable,
        model=model,
        tokenizer=host.processor,
        dtype=config["model"]["dtype"],
        log=folder / "vllm.log",
    ) as write:
        yield write


def plain_checkpoint(config: Mapping[str, Any], model: nn.Module, host: Host, saved: Path, folder: Path) -> Path:
    """The saved model as transformers' own checkpoint with its tokenizer: made once, or what was saved already."""
    merged = folder / "exported" / "merged"
    if (saved / PLAIN_CHECKPOINT).is_file():
        return saved
    if merged.exists():
        return merged
    if isinstance(model, PeftModel):
        export(saved, "merged", merged, config)
        return merged
    part = merged.with_name("merged.part")  # the base model itself
    shutil.rmtree(part, ignore_errors=True)
    host.net.save_pretrained(str(part))
    host.processor.save_pretrained(str(part))
    part.rename(merged)
    return merged
