import numpy as np
import pytest
from matplotlib.image import imread
from peft import LoraConfig, get_peft_model
from tests.adapters.tiny_models import tiny

import tombola
from tombola.pictures import draw_partition, read_partition

PATHS = [f"encoder.layer.{number}.attention.self.{kind}" for number in range(3) for kind in ("query", "key")]


def ink(masks, path):
    """The picture's share of dominant pixels in that of both groups, and the columns' middle pixels, top down."""
    draw_partition(masks, path, "pilora on llama")
    picture = imread(path)[..., :3]
    near = [np.abs(picture - np.array(colour) / 255).max(axis=2) < 0.02 for colour in ([91, 58, 140], [233, 228, 241])]
    return near[0], near[1]


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_dark_part_is_the_dominant_share_and_lies_where_the_rows_do(share, tmp_path):
    count = 64
    masks = {path: np.arange(count) < share * count for path in PATHS}
    dark, light = ink(masks, tmp_path / "partition.png")
    assert abs(dark.sum() / (dark.sum() + light.sum()) - share) < 0.03
    column = np.flatnonzero(dark.any(axis=0))[10]
    first_dark, first_light = (np.flatnonzero(one[:, column])[0] for one in (dark, light))
    assert first_dark < first_light


def test_the_same_masks_are_the_same_file(tmp_path):
    for folder in ("a", "b"):
        draw_partition({PATHS[0]: np.eye(9, dtype=bool)[2]}, tmp_path / folder / "partition.png", "pilora")
    assert (tmp_path / "a" / "partition.png").read_bytes() == (tmp_path / "b" / "partition.png").read_bytes()


def test_masks_are_read_from_the_adapter_and_there_are_none_in_another():
    chosen = {"q_proj": [True, False] * 16}
    config = tombola.PartitionedLoraConfig(target_modules=["q_proj"], r=2, r_minor=1, dominant=chosen)
    masks = read_partition(get_peft_model(tiny("llama"), config))
    assert len(masks) == 2
    assert all(path.endswith("q_proj") and not path.startswith("base_model") for path in masks)
    assert all(mask.tolist() == [True, False] * (len(mask) // 2) for mask in masks.values())
    assert read_partition(get_peft_model(tiny("llama"), LoraConfig(target_modules=["q_proj"]))) == {}
    assert read_partition(tiny("llama")) == {}
