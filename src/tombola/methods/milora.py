"""MiLoRA (Wang et al., 2024, arXiv 2406.09044): LoRA that starts at the minor singular directions of the weight.

python train.py method=milora
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from tombola.methods.adapter import Adapter
from tombola.methods.attach import attach
from tombola.methods.dense_first import ADAPTER
from tombola.methods.portable import save_adapter
from tombola.methods.residual import export_plain_lora, remember_start

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class Milora(Adapter):
    """PiSSA's mirror image: the r smallest singular directions of W go into the adapter, and are trained there.

        U S V^T = W;  B = U_r sqrt(S_r / s),  A = sqrt(S_r / s) V_r^T,  s = alpha / r
        W <- W - s B A;  train A, B

    `config` is one of PEFT's LoRA. The decomposition is of float32, or of float64 where the weights are. The authors
    train with alpha = r. The idea: the principal directions hold what was learnt in pretraining, and stay as they are.
    """

    def __post_init__(self) -> None:
        config: Any = self.config
        if not isinstance(config, LoraConfig) or config.use_dora or config.init_lora_weights is not True:
            raise ValueError(
                "MiLoRA gives a plain LoRA its start: its config is a peft.LoraConfig with init_lora_weights=true and "
                f"use_dora=false. Got {type(config).__name__} with "
                f"init_lora_weights={getattr(config, 'init_lora_weights', None)} and "
                f"use_dora={getattr(config, 'use_dora', None)}."
            )
        if not config.lora_alpha > 0:
            raise ValueError(f"MiLoRA divides by alpha / r: lora_alpha must be above 0. Got {config.lora_alpha}.")

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The host with its trained adapter; its base weights are the residual."""
        model = attach(host, self.config, seed=self.seed)
        take_minor_directions(model)
        remember_start(model)
        trainer.train(model, phase="train")
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        """A plain LoRA of twice the rank on the original weights, and a README that says how to load it."""
        adapted = cast(PeftModel, model)
        save_adapter(adapted, folder)
        export_plain_lora(adapted, folder)


@torch.no_grad()
def take_minor_directions(model: nn.Module) -> None:
    """Move each adapted weight's r smallest singular directions into its factors.

    Raises ValueError, before any weight is changed, for a layer that has no plain weight or fewer than r directions.
    """
    layers: dict[str, Any] = {path: layer for path, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    for path, layer in layers.items():
        _check_layer(path, layer)
    for layer in layers.values():
        weight = layer.get_base_layer().weight
        b, a = minor_factors(weight, layer.r[ADAPTER], layer.scaling[ADAPTER])
        layer.lora_B[ADAPTER].weight.copy_(b)
        layer.lora_A[ADAPTER].weight.copy_(a)
        weight.copy_(weight.to(b.dtype) - layer.scaling[ADAPTER] * (b @ a))


def minor_factors(
    weight: Float[Tensor, "out in"], r: int, scale: float
) -> tuple[Float[Tensor, "out r"], Float[Tensor, "r in"]]:
    """B and A of the r smallest singular directions, scale * B A being their part of the weight; at least float32."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    u, sigma, vh = torch.linalg.svd(wide, full_matrices=False)
    root = (sigma[-r:] / scale).sqrt()
    return u[:, -r:] * root, root[:, None] * vh[-r:]


def _check_layer(path: str, layer: Any) -> None:
    base = layer.get_base_layer()
    if type(base) is not nn.Linear or not base.weight.is_floating_point():
        raise ValueError(
            f"MiLoRA takes the start out of the weight, and the layer {path} is of type {type(base).__name__}, not "
            "torch.nn.Linear: narrow method.config.target_modules, or load the base model unquantised."
        )
    r, directions = layer.r[ADAPTER], min(base.weight.shape)
    if r > directions:
        raise ValueError(f"r={r} is more than the {directions} singular directions of the layer {path}: lower r.")
