"""LoRA that takes a part of the weight with it: it starts at some of the weight's singular directions.

PiSSA (Meng et al., 2024, arXiv 2404.02948) starts at the principal ones, MiLoRA (Wang et al., 2024, arXiv 2406.09044)
at the minor ones. Both move s·B0·A0 out of the weight W and into the adapter: training runs on the residual
W - s·B0·A0. What is saved must not ask users to subtract anything, so it is s·(B·A - B0·A0), a plain LoRA of rank 2r on
W itself.
PEFT's own conversion (`path_initial_model_for_weight_conversion`) drops the classification head; hence this one.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from tombola.methods.portable import ADAPTER_FILE, replace_adapter


def is_pissa(config: PeftConfig) -> bool:
    """Whether the config asks for `init_lora_weights: pissa` or `pissa_niter_<n>`."""
    return str(getattr(config, "init_lora_weights", "")).startswith("pissa")


def remember_start(model: PeftModel) -> None:
    """Keep the factors that were taken out of the weights, for `export_plain_lora`.

    In `__dict__`, because they are no part of the model: no optimizer, checkpoint, broadcast or `.to()` is to see
    them. A run that resumes computes them again from the same weights and seed.
    """
    factors = {name: value for name, value in _adapter_tensors(model).items() if _is_factor(name)}
    model.__dict__["lora_start"] = {name: value.detach().cpu().clone() for name, value in factors.items()}


def export_plain_lora(model: PeftModel, folder: Path) -> None:
    """Turn the adapter saved in `folder` into a plain LoRA of twice the rank on the original weights.

    Raises ValueError for a model whose start was not remembered.
    """
    start: dict[str, Tensor] | None = model.__dict__.get("lora_start")
    if start is None:
        raise ValueError(
            "This model was trained on the residual of its weights and does not carry the factors it started from, so "
            "it cannot be saved as a plain LoRA; attach it with Adapter.fit (PiSSA) or Milora.fit of tombola.methods "
            "instead of peft.get_peft_model."
        )
    trained = load_file(folder / ADAPTER_FILE)
    config = double_rank(LoraConfig.from_pretrained(str(folder)))
    replace_adapter(folder, stack_difference(trained, start), config)


def stack_difference(trained: dict[str, Tensor], start: dict[str, Tensor]) -> dict[str, Tensor]:
    """Factors of B·A - B0·A0 = [B | -B0]·[A ; A0]; every other tensor (the head) as it was trained."""
    stacked = dict(trained)
    for name, initial in start.items():
        stacked[name] = (
            torch.cat([trained[name], initial.to(trained[name].dtype)], dim=0)
            if ".lora_A." in name
            else torch.cat([trained[name], -initial.to(trained[name].dtype)], dim=1)
        )
    return stacked


def double_rank(config: LoraConfig) -> LoraConfig:
    """The config of a plain LoRA of twice the rank with the scaling unchanged: α/r, under rsLoRA α/√r."""
    growth = math.sqrt(2) if config.use_rslora else 2
    config.init_lora_weights = True
    config.r *= 2
    config.rank_pattern = {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()}
    config.lora_alpha *= growth  # type: ignore[assignment]
    config.alpha_pattern = {name: growth * alpha for name, alpha in (config.alpha_pattern or {}).items()}
    return config


def _adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def _is_factor(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name
