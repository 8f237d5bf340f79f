"""Running a model to answer: its mode while doing so, and padded inputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off, key-value cache on, no autograd; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    config: Any = getattr(model, "config", None)
    cached = getattr(config, "use_cache", None)  # gradient checkpointing switches it off
    model.eval()
    if cached is not None:
        config.use_cache = True
    try:
        with torch.inference_mode():
            yield
    finally:
        if cached is not None:
            config.use_cache = cached
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter lies."""
    return next(model.parameters()).device


def padded(
    rows: Sequence[Sequence[int]], pad_token_id: int, side: Literal["left", "right"], device: torch.device
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` of shape (rows, longest); with padding on the left, `position_ids` too.

    On the left, rows end together, so that the last position answers for all; a row's first token then has position 0.
    """
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    if side == "left":
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).to(device)
    return inputs


def pad_id(tokenizer: Any) -> int:
    """The tokenizer's padding token, else its end of text: masked positions are not read."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0
