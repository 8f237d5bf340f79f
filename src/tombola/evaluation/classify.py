"""Answers of a head: the likeliest class, or one number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.evaluation.inference import device_of, pad_id, padded
from tombola.tasks import Row


def head_outputs(model: nn.Module, rows: Sequence[Row], tokenizer: Any) -> Float[Tensor, "rows labels"]:
    """The head's logits for token rows."""
    device = device_of(model)
    inputs = padded([row["input_ids"] for row in rows], pad_id(tokenizer), "right", device)
    if "token_type_ids" in rows[0]:
        inputs["token_type_ids"] = padded([row["token_type_ids"] for row in rows], 0, "right", device)["input_ids"]
    return model(**inputs).logits.float()


def image_outputs(model: nn.Module, images: Sequence[Any], processor: Any) -> Float[Tensor, "rows labels"]:
    """The head's logits for images."""
    pixels = processor(images=[np.asarray(image) for image in images], return_tensors="pt")["pixel_values"]
    first = next(model.parameters())
    return model(pixel_values=pixels.to(device=first.device, dtype=first.dtype)).logits.float()


def classes(logits: Float[Tensor, "rows labels"]) -> list[int]:
    """The number of each row's likeliest class."""
    return torch.argmax(logits, dim=-1).tolist()


def values(logits: Float[Tensor, "rows 1"]) -> list[float]:
    """Each row's one number."""
    return logits.squeeze(-1).tolist()
