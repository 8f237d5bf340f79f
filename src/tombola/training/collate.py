"""Rows to the padded tensors of one micro-batch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tombola.training.batches import IGNORED, Row


@dataclass(frozen=True)
class Batch:
    """One micro-batch: what the model is called with, and what it should answer."""

    inputs: dict[str, Tensor]
    labels: Int[Tensor, "rows tokens"] | Int[Tensor, "rows"] | Float[Tensor, "rows"]
    predicts_from: Int[Tensor, "kept"] | None = None  # language models: the positions whose next token has a label


def collate(
    rows: Sequence[Row], *, pad_token_id: int, padding_side: str, device: torch.device, seed: int | None = None
) -> Batch:
    """The rows as one batch on `device`, padded to the longest; `seed` draws what varies in rows that are images."""
    if "view" in rows[0] or "pixel_values" in rows[0]:
        return Batch({"pixel_values": _images(rows, seed).to(device)}, _row_labels(rows).to(device))
    left = padding_side == "left"
    width = max(len(row["input_ids"]) for row in rows)
    ids = _padded([row["input_ids"] for row in rows], width, pad_token_id, left)
    mask = _padded([[1] * len(row["input_ids"]) for row in rows], width, 0, left)
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    if "token_type_ids" in rows[0]:  # of pairs of texts
        types = _padded([row["token_type_ids"] for row in rows], width, 0, left)
        inputs["token_type_ids"] = types.to(device)
    if "labels" not in rows[0]:
        return Batch(inputs, _row_labels(rows).to(device))
    if left:  # else a row's first token would stand at the position of the padding before it
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).to(device)
    # Nothing comes before a row's first token to predict it from.
    labels = _padded([[IGNORED, *row["labels"][1:]] for row in rows], width, IGNORED, left)
    predicts_from = (labels[:, 1:] != IGNORED).any(0).nonzero().flatten()
    return Batch(inputs, labels.to(device), predicts_from.to(device))


def _images(rows: Sequence[Row], seed: int | None) -> Float[Tensor, "rows channels height width"]:
    if "pixel_values" in rows[0]:
        return torch.stack([torch.as_tensor(row["pixel_values"]) for row in rows])
    with ThreadPoolExecutor() as threads:  # decoding and resizing leave Python's lock; each image is made from its seed
        return torch.stack(list(threads.map(lambda row: row["view"](seed), rows)))


def _padded(sequences: Sequence[Sequence[int]], width: int, fill: int, left: bool) -> Int[Tensor, "rows width"]:
    lines = []
    for sequence in sequences:
        padding = [fill] * (width - len(sequence))
        lines.append([*padding, *sequence] if left else [*sequence, *padding])
    return torch.tensor(lines, dtype=torch.long)


def _row_labels(rows: Sequence[Row]) -> Tensor:
    return torch.tensor([row["label"] for row in rows])
