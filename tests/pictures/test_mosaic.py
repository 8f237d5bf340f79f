import numpy as np
import torch

from tombola.pictures.layout import lay_out
from tombola.pictures.mosaic import OUTSIDE, arrange, tile
from tombola.pictures.moved import LayerMove


def maps(layers, cells, unique=None):
    return {f"layers.{n}.{m}": LayerMove(cells, 1, 2, unique, unique) for n in range(layers) for m in ("q", "v")}


def test_every_cell_is_a_whole_number_of_pixels():
    moved = maps(2, torch.arange(12.0).view(3, 4))
    layout = lay_out(moved)
    geometry = arrange(moved, layout)
    pixels = tile(moved, layout, geometry)
    assert geometry.side % 4 == 0
    y, x = geometry.corner(1, 1)
    shown = pixels[y : y + geometry.side, x : x + geometry.side]
    values, counts = np.unique(shown, return_counts=True)
    assert values.tolist() == list(range(12))
    assert counts.max() - counts.min() <= geometry.side // 4, "rows of cells differ by one row of pixels at most"
    assert pixels[y - 1, x] == OUTSIDE


def test_every_weight_has_its_own_tile_inside_the_picture():
    for layers in (1, 6, 17, 40):
        moved = maps(layers, torch.ones(2, 2), unique=1)
        layout = lay_out(moved)
        geometry = arrange(moved, layout)
        shown = (tile(moved, layout, geometry) == 1).sum()
        assert shown == 2 * layers * geometry.side**2, layers


def test_deep_models_are_broken_into_bands():
    moved = maps(32, torch.ones(64, 64))
    layout = lay_out(moved)
    geometry = arrange(moved, layout)
    assert geometry.bands == 2
    assert geometry.corner(0, 16)[1] == geometry.corner(0, 0)[1] == 0
    assert geometry.corner(0, 16)[0] > geometry.corner(1, 0)[0]
    assert geometry.side >= 64
