"""LoRA-Dash (Si et al., 2024, arXiv 2409.01035): LoRA that dashes along the directions its first steps have shown.

python train.py method=lora_dash
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from tombola.adapters import LoraDashConfig, choose_directions
from tombola.methods.attach import attach
from tombola.methods.portable import ADAPTER_FILE, replace_adapter, save_adapter
from tombola.training import Rewrite, Window, reindexed

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

WHOLE = "train"
A, B, C = ".lora_dash_a", ".lora_dash_b", ".lora_dash_c"  # as the saved tensors have them: A.weight, C.u


@dataclass(frozen=True)
class LoraDash:
    """Train LoRA for a while, see along which directions of the weight it moves, and train these by themselves too.

        train A, B for warmup_steps
        U S V^T = W;  rate_i = |u_i^T (s B A) v_i| / S_i
        u, v = the directions with the largest rates, fixed;  c = 0
        train A, B and c:  delta = s B A + u diag(c) v^T

    It is one training, cut in two: schedule, data order and the moments of A and B go on. `warmup_steps` are optimizer
    steps; the authors' code counts forward passes, each micro-batch's and each evaluation's. They are at most half of
    the training. c is a vector and takes no weight decay. Its moments start at 0 with its first gradient, but Adam's
    `step` is the whole model's and goes on, as everywhere here; training.optimizer=adamw_per_entry counts c's own.

    Saved as a plain LoRA of rank r + directions, the last of them u diag(c) / s and v: PEFT loads it without this
    package, and merges it.
    """

    saved_in: ClassVar[str] = "adapter"

    config: LoraDashConfig
    seed: int = 0
    warmup_steps: int = 100

    def __post_init__(self) -> None:
        if self.warmup_steps < 1:
            raise ValueError(f"warmup_steps must be at least 1. Got {self.warmup_steps}.")

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter, after the phases `lora` and `dash`."""
        model = attach(host, self.config, seed=self.seed)
        total = trainer.total_steps()
        first = min(self.warmup_steps, total // 2)
        trainer.train(model, phase="lora", steps=first, window=Window(WHOLE, 0, total), keep_optimizer=True)
        choose_directions(model)
        moments = with_new_directions(model, trainer.optimizer_state("lora"))
        trainer.train(model, phase="dash", steps=total - first, window=Window(WHOLE, first, total), optimizer=moments)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        """A plain LoRA on the base weights, and a README that says how to load it."""
        save_adapter(cast(PeftModel, model), folder)
        trained, config = load_file(folder / ADAPTER_FILE), LoraDashConfig.from_pretrained(str(folder))
        replace_adapter(folder, as_lora(trained, config.lora_alpha / config.r), lora_config(config))

    def load(self, host: Host, folder: Path) -> nn.Module:
        """`PeftModel.from_pretrained` on the host's weights."""
        return cast(nn.Module, PeftModel.from_pretrained(host.net, str(folder)).eval())


def with_new_directions(model: nn.Module, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimizer's state with that of every c cleared; where each entry has an age of its own, that too."""
    cleared = dict(moments)
    for name, parameter in model.named_parameters():
        if f"{C}." in name:
            none = torch.full((len(parameter),), -1)
            cleared = reindexed(cleared, name, Rewrite(parameter.detach(), none))
    return cleared


def as_lora(trained: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Factors of s·[B | U·diag(c)/s]·[A ; V^T]; every other tensor (the head) as it was trained."""
    plain = {name: value for name, value in trained.items() if not any(f"{part}." in name for part in (A, B, C))}
    for name, a in trained.items():
        path, found, _ = name.partition(f"{A}.")
        if found:
            b, c, u, v = (trained[path + end] for end in (f"{B}.weight", f"{C}.weight", f"{C}.u", f"{C}.v"))
            plain[f"{path}.lora_A.weight"] = torch.cat([a, v.to(a)], dim=0)
            plain[f"{path}.lora_B.weight"] = torch.cat([b, (u * c / scale).to(b)], dim=1)
    return plain


def lora_config(config: LoraDashConfig) -> LoraConfig:
    """The config of a plain LoRA of rank r + directions on the same layers, its scale unchanged."""
    shared = {field.name for field in dataclasses.fields(LoraConfig)} - {"peft_type"}
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name in shared}
    r = config.r + config.directions
    return LoraConfig(**{**fields, "r": r, "lora_alpha": config.lora_alpha * r / config.r})
