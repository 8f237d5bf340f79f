"""The part of an encoder that no checkpoint has: its classification head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

HEAD_STD = 0.02  # BERT's initializer_range, the habit of every encoder here


def head_modules(model: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the modules that are newly initialised, in the class with a head.

    DeBERTa's checkpoints have no pooler. BERT's have one, and it stays frozen with the rest; RoBERTa's class does
    without, its `classifier` holds a dense layer of its own.
    """
    if model["role"] == "decoder":
        return ()
    if model["architecture"]["model_type"] == "deberta-v2":
        return ("pooler", "classifier")
    return ("classifier",)


def start_head(net: nn.Module, head: tuple[str, ...], seed: int) -> None:
    """Draw the head's weights from `seed` alone, biases zero: whatever was drawn before, the same head."""
    generator = torch.Generator().manual_seed(seed)
    for name in head:
        for module in net.get_submodule(name).modules():
            if isinstance(module, nn.Linear):
                drawn = torch.empty(module.weight.shape).normal_(0.0, HEAD_STD, generator=generator)
                with torch.no_grad():
                    module.weight.copy_(drawn)
                    if module.bias is not None:
                        module.bias.zero_()
