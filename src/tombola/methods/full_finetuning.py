"""Full fine-tuning: every weight moves. The row that adapters are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from torch import nn
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class FullFinetuning:
    """Train all weights in float32 and save a plain transformers checkpoint."""

    saved_in: ClassVar[str] = "checkpoint"

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """`host.net` with all weights trained.

        In float32 whatever the model's dtype: a step of 1e-5 of a weight is below bfloat16's resolution (2^-8), so that
        such weights would not move. `training.mixed_precision=bf16` still computes in bfloat16.
        """
        net = host.net.float().requires_grad_(True)
        trainer.train(net, phase="train")
        return cast(nn.Module, net)

    def save(self, model: nn.Module, folder: Path) -> None:
        """`config.json` and `model.safetensors`, as `from_pretrained` reads them."""
        cast(PreTrainedModel, model).save_pretrained(str(folder))

    def load(self, host: Host, folder: Path) -> nn.Module:
        """The checkpoint, read by the host's own class; `host.net` gives its class and device only."""
        net = type(host.net).from_pretrained(str(folder), dtype="auto", local_files_only=True, use_safetensors=True)
        return cast(nn.Module, net).to(host.net.device).eval()
