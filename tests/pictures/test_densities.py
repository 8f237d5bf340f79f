import numpy as np
from matplotlib.image import imread

from tombola.pictures import draw_densities

PATHS = [f"encoder.layer.{number}.attention.self.{kind}" for number in range(3) for kind in ("query", "key")]


def ink(densities, path):
    """Pixels of bars in the picture."""
    draw_densities(densities, path, "partial_lora on llama")
    picture = imread(path)[..., :3]
    return int((np.abs(picture - np.array([0x5B, 0x3A, 0x8C]) / 255).max(axis=2) < 0.02).sum())


def test_bars_are_as_high_as_the_shares(tmp_path):
    whole = ink(dict.fromkeys(PATHS, 1.0), tmp_path / "whole.png")
    assert whole > 5000
    assert ink(dict.fromkeys(PATHS, 0.0), tmp_path / "none.png") == 0
    half = ink({path: 0.25 + 0.5 * ("key" in path) for path in PATHS}, tmp_path / "half.png")
    assert abs(half / whole - 0.5) < 0.02


def test_the_same_shares_are_the_same_file(tmp_path):
    ink({PATHS[0]: 0.3}, tmp_path / "a" / "densities.png")
    ink({PATHS[0]: 0.3}, tmp_path / "b" / "densities.png")
    assert (tmp_path / "a" / "densities.png").read_bytes() == (tmp_path / "b" / "densities.png").read_bytes()
