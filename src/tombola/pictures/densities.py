"""`densities.png`: how much of each layer a search has kept, one panel a kind of module, one bar a layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from tombola.pictures.layout import lay_out

_INK, _BAR, _GRID = "#1d2733", "#5b3a8c", "#e3e6ea"


def draw_densities(densities: Mapping[str, float], path: Path, title: str) -> None:
    """Draw shares in [0, 1] by module path; the same shares give the same file."""
    layout = lay_out(densities)
    rows, columns = len(layout.rows), len(layout.columns)
    figure = Figure(figsize=(max(5.0, 1.5 + 0.3 * columns), 1.0 + 1.1 * rows), facecolor="white", layout="constrained")
    figure.suptitle(f"Share kept of each layer\n{title}", size=10, weight="bold", color=_INK)
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for name, (row, column) in layout.places.items():
        bar = panels[row].bar(column, densities[name], color=_BAR, width=0.8)
        panels[row].bar_label(bar, fmt="%.2f", size=6, padding=1, color=_INK)  # a share of 0 has no bar to be seen
    for panel, label in zip(panels, layout.rows, strict=True):
        panel.set(ylim=(0, 1.2), yticks=(0, 0.5, 1), xlim=(-0.6, columns - 0.4))
        panel.set_ylabel(label, size=9, color=_INK)
        panel.grid(axis="y", color=_GRID)
        panel.set_axisbelow(True)
    panels[-1].set_xticks(range(columns), layout.columns, size=8)
    panels[-1].set_xlabel("layer", size=9, color=_INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=100, metadata={"Software": None})  # it would name matplotlib's version
