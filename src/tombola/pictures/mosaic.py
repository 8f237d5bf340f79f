"""Pooled maps as one array, one tile a weight, each cell a whole number of pixels so that none is lost or blurred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tombola.pictures.layout import Layout
from tombola.pictures.moved import Moved

# Smallest side of a tile in pixels by the number of columns: few layers are shown larger.
_SIDES = ((6, 150), (10_000, 104))
_COLUMNS = 16  # deep models are broken into bands of so many layers, or BoLA's single blocks could not be seen
OUTSIDE = -1.0  # value of the pixels between tiles; cells are never negative


@dataclass(frozen=True)
class Geometry:
    """Where tiles stand, in pixels from the top left."""

    rows: int  # of one band
    columns: int  # of all bands
    side: int  # of a tile
    gap: int  # between tiles
    text: int  # height of the line under each tile, 0 for none
    zoom: float  # of all writing: wide pictures are looked at from further away

    @property
    def heading(self) -> int:
        """Height of the line of layer numbers above each band."""
        return round(26 * self.zoom)

    @property
    def bands(self) -> int:
        """How often the columns are broken."""
        return -(-self.columns // _COLUMNS)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the whole; one pixel more than the tiles, for the last frame's line."""
        height = self.bands * self._band_height - self.gap
        return height + 1, min(self.columns, _COLUMNS) * (self.side + self.gap) - self.gap + 1

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Top left pixel (y, x) of a tile."""
        top = (column // _COLUMNS) * self._band_height + self.heading
        return top + row * (self.side + self.gap + self.text), (column % _COLUMNS) * (self.side + self.gap)

    @property
    def _band_height(self) -> int:
        return self.heading + self.rows * (self.side + self.gap + self.text)


def arrange(moved: Moved, layout: Layout) -> Geometry:
    """Tiles as small as the number of layers asks for and as large as the finest grid needs."""
    finest = max(max(move.cells.shape) for move in moved.values())
    least = next(side for columns, side in _SIDES if len(layout.columns) <= columns)
    side = finest * max(1, -(-least // finest))
    zoom = 1.0 if min(len(layout.columns), _COLUMNS) * side < 1800 else 1.6
    text = round(16 * zoom) if any(move.unique_blocks is not None for move in moved.values()) else 0
    return Geometry(len(layout.rows), len(layout.columns), side, gap=max(4, side // 14), text=text, zoom=zoom)


def tile(moved: Moved, layout: Layout, geometry: Geometry) -> NDArray[np.float32]:
    """(height, width): mean |ΔW| of every weight's cells at its place, OUTSIDE between tiles."""
    pixels = np.full(geometry.shape, OUTSIDE, np.float32)
    for name, move in moved.items():
        y, x = geometry.corner(*layout.places[name])
        pixels[y : y + geometry.side, x : x + geometry.side] = _enlarge(move.cells.numpy(), geometry.side)
    return pixels


def _enlarge(cells: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Each cell as a rectangle of pixels, the whole a square of `side`; edges fall where rounding puts them."""
    rows = np.arange(side) * cells.shape[0] // side
    columns = np.arange(side) * cells.shape[1] // side
    return cells[rows][:, columns]
