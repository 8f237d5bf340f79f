"""RoSA, Robust Adaptation (Nikdan et al., 2024, arXiv 2401.04679): LoRA and a sparse delta trained together.

python train.py method=rosa
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from peft import PeftModel
from torch import Tensor, nn

from tombola.adapters import RosaConfig, RosaLinear, rosa_entries, rosa_layers, write_rosa_counts
from tombola.methods.attach import attach
from tombola.methods.dense_first import ADAPTER, put_back
from tombola.methods.portable import save_adapter
from tombola.tickets import top_k

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

GRAD_SCORES = ("mean_squares", "mean")


@dataclass(frozen=True)
class Rosa:
    """Train LoRA alone for a while, see where the weights' gradients are large, and train both parts from scratch.

        train A, B for warmup_steps
        G_i   = the weight's gradient on the next batch i, for i < spa_num_grads
        mask  = the floor(density * numel) entries of each weight with the largest mean of G_i^2
        A, B, a new head = their start; S = 0 on the mask; train A, B, S and the head

    `config` has the low-rank part and the number of entries. `grad_score=mean` ranks by |mean of G_i| instead. With one
    batch, as the authors' recipes have it, one dense gradient is alive at a time; with more, their sums are kept in
    float32 on the CPU. The gradients are taken without dropout.

    The authors give the two parts rates of their own (7e-4 and 2e-4 for LLaMA2-7B on GSM8K). Under Adam that is
    `config.sparse_scale`, the second over the first.
    """

    saved_in: ClassVar[str] = "adapter"

    config: RosaConfig
    seed: int = 0
    warmup_steps: int = 64
    spa_num_grads: int = 1
    grad_score: str = "mean_squares"

    def __post_init__(self) -> None:
        if self.grad_score not in GRAD_SCORES:
            raise ValueError(f"grad_score must be one of {', '.join(GRAD_SCORES)}. Got {self.grad_score!r}.")
        for name in ("warmup_steps", "spa_num_grads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Got {getattr(self, name)}.")
        if self.config.r < 1:
            raise ValueError("RoSA finds its mask while LoRA trains: its config needs r of at least 1. Got r=0.")

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter, after the phases `warmup` and `train`."""
        lora_alone = copy.copy(self.config)
        lora_alone.count, lora_alone.density = 0, None
        model = attach(host, lora_alone, seed=self.seed)
        layers = rosa_layers(model.get_base_model())
        start = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}
        steps = trainer.train(model, phase="warmup", steps=self.warmup_steps).steps
        for path, entries in self.masks(model, layers, trainer, after=steps).items():
            layers[path].set_support(ADAPTER, entries)
        put_back(model, start)
        trainer.train(model, phase="train")
        return model

    def masks(
        self, model: nn.Module, layers: dict[str, RosaLinear], trainer: Trainer, *, after: int
    ) -> dict[str, Tensor]:
        """(count,) ascending entries of each layer, from the batches that follow the first `after` of the warm-up."""
        sums: dict[str, Tensor] = {}
        chosen: dict[str, Tensor] = {}

        def see(path: str, gradient: Tensor) -> None:
            score = (gradient.square() if self.grad_score == "mean_squares" else gradient).flatten()
            if path in sums:
                score = score + sums.pop(path).to(score)
            if number + 1 < self.spa_num_grads:
                sums[path] = score.cpu()
            else:
                chosen[path] = top_k(score.abs(), rosa_entries(self.config, path, *gradient.shape))

        for number in range(self.spa_num_grads):
            trainer.dense_gradients(model, layers, see, phase="warmup", step=after + number)
        return chosen

    def save(self, model: nn.Module, folder: Path) -> None:
        """PEFT's two files and a README; the config has each layer's count, so that it loads as any adapter does."""
        write_rosa_counts(model)
        save_adapter(cast(PeftModel, model), folder)

    def load(self, host: Host, folder: Path) -> nn.Module:
        """`PeftModel.from_pretrained` on the host's original weights."""
        return cast(nn.Module, PeftModel.from_pretrained(host.net, str(folder)).eval())
