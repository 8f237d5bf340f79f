"""`partition.png`: which rows of each layer got the high rank, in the manner of PiLoRA's figure 3.

One panel a kind of module, one column a layer, one line a row of the weight: dark where it is dominant, light where it
is supplementary; above each column the dominant share.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from tombola.adapters import partitioned_lora_layers
from tombola.pictures.layout import lay_out

_INK, _DOMINANT, _MINOR = "#1d2733", "#5b3a8c", "#e9e4f1"


def read_partition(model: nn.Module) -> dict[str, NDArray[np.bool_]]:
    """Which rows of each layer are dominant, (out,), by path in the base model; empty for another adapter."""
    net = model.get_base_model() if isinstance(model, PeftModel) else model
    masks: dict[str, NDArray[np.bool_]] = {}
    for path, layer in partitioned_lora_layers(net).items():
        masks[path] = np.zeros(layer.out_features, dtype=bool)
        masks[path][layer.dominant(layer.active_adapters[0]).cpu().numpy()] = True
    return masks


def draw_partition(dominant: Mapping[str, NDArray[np.bool_]], path: Path, title: str) -> None:
    """Draw masks (out,) by module path, True for dominant rows; the same masks give the same file."""
    layout = lay_out(dominant)
    rows, columns = len(layout.rows), len(layout.columns)
    size = (max(5.0, 1.7 + 0.45 * columns), 1.2 + 1.9 * rows)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    figure.suptitle(
        f"Rows with the high rank, and their share of each layer\n{title}", size=10, weight="bold", color=_INK
    )
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for name, (row, column) in layout.places.items():
        _draw_column(panels[row], column, dominant[name])
    for number, (panel, label) in enumerate(zip(panels, layout.rows, strict=True)):
        height = max(len(dominant[name]) for name, (row, _) in layout.places.items() if row == number)
        panel.set(xlim=(-0.6, columns - 0.4), ylim=(height, -0.13 * height), yticks=(0, height))
        panel.set_ylabel(f"{label}, row", size=9, color=_INK)
    panels[-1].set_xticks(range(columns), layout.columns, size=8)
    panels[-1].set_xlabel("layer", size=9, color=_INK)
    keys = [Patch(facecolor=_DOMINANT, label="dominant"), Patch(facecolor=_MINOR, label="supplementary")]
    figure.legend(handles=keys, loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=100, metadata={"Software": None})  # it would name matplotlib's version


def _draw_column(panel: Axes, column: int, mask: NDArray[np.bool_]) -> None:
    # Thin lines are blended where there are more rows than pixels: "none" would drop some of them.
    panel.imshow(
        mask[:, None], cmap=ListedColormap([_MINOR, _DOMINANT]), vmin=0, vmax=1, aspect="auto",
        interpolation="antialiased", interpolation_stage="rgba", extent=(column - 0.4, column + 0.4, len(mask), 0),
    )  # fmt: skip
    panel.text(column, -0.02 * len(mask), f"{mask.mean():.2f}", size=7, ha="center", va="bottom", color=_INK)
