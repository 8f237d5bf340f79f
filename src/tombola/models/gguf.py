"""From llama.cpp's quantised format to plain safetensors, once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tombola.models.architecture import net_config


def convert_gguf(model: Mapping[str, Any], file: Path, target: Path) -> None:
    """Write the dequantised weights (float32), config and tokenizer of a GGUF file into `target`.

    In float32, because scale * code + minimum is exact there. The config is ours: transformers marks its own as
    quantised, and then refuses to save the model.
    """
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "local_files_only": True,
    }
    net = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    tied = set(net.all_tied_weights_keys) if net.config.tie_word_embeddings else set()
    weights = {name: value.contiguous() for name, value in net.state_dict().items() if name not in tied}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    net_config(model, {}).save_pretrained(target)
    net.generation_config.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)
