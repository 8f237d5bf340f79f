"""`ticket.png`: where in each layer an adapter moved the model, in the manner of BoLA's figure 5.

Rows are kinds of module, columns are layers; each tile is one weight cut into the adapter's grid, outputs downwards and
inputs to the right, each cell its mean |ΔW|. Cells that did not move are left white.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import nn

from tombola.pictures.layout import Layout, lay_out
from tombola.pictures.mosaic import OUTSIDE, Geometry, arrange, tile
from tombola.pictures.moved import Moved, read_moved, summarise
from tombola.pictures.saved import load_moved, save_moved

_DPI = 100  # pixels of an inch; all places below are in pixels, so that a cell is never drawn across two
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEADING, _BETWEEN = 150, 130, 56, 40, 50, 30  # times the writing's zoom
_BAR_HEIGHT = 480  # at most
_INK, _FAINT, _FRAME = "#1d2733", "#66707c", "#c9cfd6"


def draw_ticket(
    model: nn.Module, path: Path, title: str, beside: Path | None = None, grid: tuple[int, int] = (16, 16)
) -> dict[str, Any]:
    """Draw the model's adapter to `path`, save its maps beside it as `.safetensors`, return the record's summary.

    `beside` is the `ticket.safetensors` of another run of the same model and task, drawn underneath. `grid` is as in
    `read_moved`. `path` stands in the run's folder, whose name becomes the caption. A model without an adapter has no
    picture, and its summary is empty.
    """
    moved = read_moved(model, grid)
    if not moved:
        return {}
    save_moved(moved, path.with_suffix(".safetensors"), title)
    panels = [(title, moved)]
    if beside is not None:
        panels.append(load_moved(beside))
    draw_moved(panels, path, caption=path.parent.name)
    return summarise(moved)


def draw_moved(panels: list[tuple[str, Moved]], path: Path, caption: str = "") -> None:
    """Draw titled maps one under the other; the same maps give the same file."""
    layouts = [lay_out(moved) for _, moved in panels]
    geometries = [arrange(moved, layout) for (_, moved), layout in zip(panels, layouts, strict=True)]
    zoom = max(geometry.zoom for geometry in geometries)
    width = max(720, *(geometry.shape[1] for geometry in geometries)) + zoom * (_LEFT + _RIGHT)
    height = sum(geometry.shape[0] + zoom * (_HEADING + _BETWEEN) for geometry in geometries) + zoom * (_TOP + _BOTTOM)
    # Whole pixels, or every place below would be a fraction of one off.
    figure = Figure(figsize=(round(width) / _DPI, round(height) / _DPI), dpi=_DPI, facecolor="white")
    top, left = round(height - zoom * _TOP), round(zoom * _LEFT)
    _write(figure, left, top + 22 * zoom, "Where the adapter moved each weight", size=15 * zoom, weight="bold")
    for (title, moved), layout, geometry in zip(panels, layouts, geometries, strict=True):
        _write(figure, left, top - 20 * zoom, title, size=12 * zoom, weight="bold")
        _write(figure, left, top - 39 * zoom, _explain(moved), size=9.5 * zoom, color=_FAINT)
        _draw_panel(figure, moved, layout, geometry, left, top - round(zoom * _HEADING))
        top -= geometry.shape[0] + round(zoom * (_HEADING + _BETWEEN))
    _write(figure, left, 16 * zoom, caption, size=8.5 * zoom, color=_FAINT)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The default metadata names matplotlib's version, by which the same picture would differ.
    figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})


def _draw_panel(figure: Figure, moved: Moved, layout: Layout, geometry: Geometry, left: int, top: int) -> None:
    height, width = geometry.shape
    norm, colours = _scale(moved), _colours()
    axes = _axes(figure, left, top - height, width, height)
    painted = _paint(tile(moved, layout, geometry), norm, colours)
    axes.imshow(painted, interpolation="none", aspect="auto", extent=(0, width, height, 0))
    axes.set_axis_off()
    _frame_tiles(axes, moved, layout, geometry)
    _label(axes, layout, geometry)
    _draw_bar(figure, ScalarMappable(norm, colours), geometry, left + width, top - geometry.heading)


def _draw_bar(figure: Figure, colours: ScalarMappable, geometry: Geometry, left: int, top: int) -> None:
    zoom, height = geometry.zoom, min(_BAR_HEIGHT, geometry.shape[0] - geometry.heading - geometry.text)
    place = _axes(figure, left + round(24 * zoom), top - height, round(13 * zoom), height)
    bar = figure.colorbar(colours, cax=place, extend="max")
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.set_label("mean |ΔW| of a cell", size=9 * zoom, color=_INK)
    bar.ax.tick_params(labelsize=8 * zoom)
    bar.ax.yaxis.get_offset_text().set_fontsize(8 * zoom)


def _frame_tiles(axes: Axes, moved: Moved, layout: Layout, geometry: Geometry) -> None:
    side = geometry.side
    style: dict[str, Any] = {"ha": "center", "va": "center", "size": 7.5 * geometry.zoom, "color": _FAINT}
    for name, place in layout.places.items():
        y, x = geometry.corner(*place)
        axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=_FRAME, linewidth=0.7, clip_on=False))
        if moved[name].unique_blocks is not None:
            label = f"{moved[name].unique_blocks}/{moved[name].candidates}"
            axes.text(x + side / 2, y + side + geometry.text / 2 + 1, label, **style)


def _label(axes: Axes, layout: Layout, geometry: Geometry) -> None:
    half, zoom = geometry.side / 2, geometry.zoom
    for column, number in enumerate(layout.columns):
        y, x = geometry.corner(0, column)
        above = y - 10 * zoom
        axes.text(x + half, above, number, ha="center", va="center", size=9 * zoom, color=_INK)
        if x == 0:  # the first of a band
            axes.text(-10 * zoom, above, "layer", ha="right", va="center", size=9 * zoom, color=_FAINT)
            for row, label in enumerate(layout.rows):
                middle = geometry.corner(row, column)[0] + half
                axes.text(-10 * zoom, middle, label, ha="right", va="center", size=10 * zoom, color=_INK)


def _explain(moved: Moved) -> str:
    total = summarise(moved)
    words = f"{100 * total['moved_share']:.2f} % of the entries of {len(moved)} weights moved"
    if any((move.cells == 0).any() for move in moved.values()):
        words += "; white cells did not"
    if "unique_blocks" in total:
        words += f"; under each tile its distinct blocks of k, {total['unique_blocks']} of {total['candidates']} in all"
    return words


def _scale(moved: Moved) -> Normalize:
    """Up to the 99.5th percentile of the cells that moved, so that a few large ones do not pale the rest."""
    values = np.concatenate([move.cells.numpy().ravel() for move in moved.values()])
    values = values[values > 0]
    return Normalize(0.0, float(np.quantile(values, 0.995)) if values.size else 1.0)


def _colours() -> Colormap:
    """Without magma's palest tones, so that a cell that moved a little is not taken for one that did not."""
    return LinearSegmentedColormap.from_list("moved", colormaps["magma_r"](np.linspace(0.12, 1.0, 256)))


def _paint(pixels: NDArray[np.float32], norm: Normalize, colours: Colormap) -> NDArray[np.float32]:
    painted = np.asarray(colours(norm(pixels)), dtype=np.float32)
    painted[(pixels == 0) | (pixels == OUTSIDE)] = 1.0
    return painted


def _axes(figure: Figure, x: int, y: int, width: int, height: int) -> Axes:
    whole_width, whole_height = figure.get_size_inches() * _DPI
    return figure.add_axes((x / whole_width, y / whole_height, width / whole_width, height / whole_height))


def _write(figure: Figure, x: float, y: float, words: str, **style: Any) -> None:
    width, height = figure.get_size_inches() * _DPI
    figure.text(x / width, y / height, words, **({"color": _INK} | style))
