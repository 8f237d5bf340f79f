"""PiLoRA: LoRA with a high rank for the neurons that matter while it trains, and a low one for the others.

python train.py method=pilora
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from peft import LoraConfig, PeftModel
from torch import nn

from tombola.adapters import PartitionedLoraConfig, partitioned_lora_layers
from tombola.methods.attach import attach, detach
from tombola.methods.pilora_importance import Importance
from tombola.methods.portable import save_adapter
from tombola.methods.sparse import ADAPTER
from tombola.tickets import ROW_RULES, TOP_FRACTION

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

MASK_RULES = (*ROW_RULES, "random")
CHECKS = "pilora_checks"
SHARED = (  # with the first stage
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "task_type",
    "r", "lora_alpha", "lora_dropout",
)  # fmt: skip


@dataclass(frozen=True)
class Pilora:
    """Train LoRA for a while, see which rows of each weight matter, and train two groups of rows from scratch.

        train A, B of rank r for stage1_epochs; every check_every steps, before the step:
            G = B GA + GB A,  S_i = sum_j |G_ij|,  H_i += 1 where S_i > mean(S)
        dominant rows = rule(H);  A, B are forgotten, a new head is back at its start
        train A, B of rank r for the dominant rows and of rank r_minor for the others

    The paper leaves open how H makes the dominant rows (`mask_rule`, `theta`: see `tombola.tickets.dominant_mask`; with
    `random` half of the rows, whatever H is), how often it is counted (`check_every`), and whether the first stage is
    one of the epochs (`count_stage1_epoch`: the second stage is then as much shorter).
    """

    saved_in: ClassVar[str] = "adapter"

    config: PartitionedLoraConfig
    seed: int = 0
    mask_rule: str = "majority"
    theta: float = 0.7
    check_every: int = 10
    stage1_epochs: float = 1.0
    count_stage1_epoch: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter, after the phases `importance` and `train`."""
        steps = self.last_steps(trainer)
        importance = Importance(attach(host, self.plain_lora(), seed=self.seed), self.check_every)
        trainer.train(importance.model, phase="importance", epochs=self.stage1_epochs, hooks=[importance])
        by_rule = self.mask_rule != "random"
        dominant = importance.dominant(self.mask_rule, theta=self.theta) if by_rule else TOP_FRACTION
        detach(importance.model)
        model = attach(host, replace(self.config, dominant=dominant), seed=self.seed)
        model.__dict__[CHECKS] = importance.checks  # no part of the model: no checkpoint is to see it
        each, overall = dominant_shares(model)
        layers = {f"dominant_share/{path}": share for path, share in each.items()}
        trainer.note("importance", {"checks": importance.checks, "dominant_share": overall, **layers})
        trainer.train(model, phase="train", steps=steps)
        return model

    def plain_lora(self) -> LoraConfig:
        """The first stage's adapter: LoRA on the same layers."""
        return LoraConfig(**{name: getattr(self.config, name) for name in SHARED})

    def last_steps(self, trainer: Trainer) -> int | None:
        """Optimizer steps of the second stage, None for all. Raises ValueError where the first stage leaves none."""
        if not self.count_stage1_epoch:
            return None
        first, total = trainer.total_steps(self.stage1_epochs), trainer.total_steps()
        if first >= total:
            raise ValueError(
                f"count_stage1_epoch=true leaves no step for the second stage: the first takes {first} of {total}. "
                "Lower stage1_epochs, raise training.epochs, or set count_stage1_epoch=false."
            )
        return total - first

    def save(self, model: nn.Module, folder: Path) -> None:
        """PEFT's two files and a README, and `ticket.json` with the share of dominant rows, for the record."""
        save_adapter(cast(PeftModel, model), folder)
        each, overall = dominant_shares(model)
        ticket = {"dominant_share": overall, "dominant_shares": each}
        if CHECKS in model.__dict__:
            ticket["checks"] = model.__dict__[CHECKS]
        (folder / "ticket.json").write_text(f"{json.dumps(ticket, indent=1)}\n", encoding="utf-8")

    def load(self, host: Host, folder: Path) -> nn.Module:
        """`PeftModel.from_pretrained` on the host's original weights."""
        return cast(nn.Module, PeftModel.from_pretrained(host.net, str(folder)).eval())


def dominant_shares(model: nn.Module) -> tuple[dict[str, float], float]:
    """The share of each layer's rows that is dominant, by path in the base model, and the share of all layers'."""
    layers = partitioned_lora_layers(cast(PeftModel, model).get_base_model())
    rows = {path: layer.dominant(ADAPTER).numel() for path, layer in layers.items()}
    each = {path: rows[path] / layer.out_features for path, layer in layers.items()}
    return each, sum(rows.values()) / sum(layer.out_features for layer in layers.values())


def _check(method: Pilora) -> None:
    if method.config.target_modules is None:
        raise ValueError("PiLoRA's two stages adapt the same layers: name them in config.target_modules.")
    if method.mask_rule not in MASK_RULES:
        raise ValueError(f"mask_rule must be one of {', '.join(MASK_RULES)}. Got {method.mask_rule!r}.")
    if not 0 < method.theta <= 1:
        raise ValueError(f"theta is a share above 0 and at most 1. Got {method.theta}.")
    if method.check_every < 1:
        raise ValueError(f"check_every must be at least 1. Got {method.check_every}.")
    if not method.stage1_epochs > 0:
        raise ValueError(f"stage1_epochs must be above 0. Got {method.stage1_epochs}.")
