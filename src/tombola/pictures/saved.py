"""Pooled maps on disk, so that two runs can be drawn side by side later, without their models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from tombola.pictures.moved import LayerMove, Moved


def save_moved(moved: Moved, path: Path, title: str) -> None:
    """Write the maps and their counts; the same maps give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = {
        name: {field.name: getattr(move, field.name) for field in dataclasses.fields(move) if field.name != "cells"}
        for name, move in moved.items()
    }
    # One metadata key: the header's keys are written in hash order, which changes from process to process.
    metadata = {"ticket": json.dumps({"title": title, "counts": counts})}
    save_file({name: move.cells.contiguous() for name, move in moved.items()}, path, metadata=metadata)


def load_moved(path: Path) -> tuple[str, Moved]:
    """Title and maps, in the model's order. Raises ValueError for a file that holds none."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if "ticket" not in metadata:
            raise ValueError(f"{path} holds no pooled maps; expected a ticket.safetensors that a run has written.")
        header = json.loads(metadata["ticket"])
        moved = {name: LayerMove(cells=file.get_tensor(name), **counts) for name, counts in header["counts"].items()}
    return header["title"], moved
