import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tombola.tasks import Example, Picture
from tombola.tasks.views import crop_box, image_rows

VIT = ViTImageProcessorPil(size={"height": 8, "width": 8})
CLIP = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
LARGER = CLIPImageProcessorPil(size={"shortest_edge": 10}, crop_size={"height": 8, "width": 8})  # and its middle is cut


def noise(height=20, width=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rows_of(images, processor=VIT, scale=(0.9, 1.0)):
    return image_rows([Example("", 3, 3, image=Picture(lambda i=image: i, scale)) for image in images], processor)


@pytest.mark.parametrize("processor", [VIT, CLIP])
def test_an_evaluation_sees_what_the_models_processor_makes(processor):
    (row,) = rows_of([noise()], processor)
    assert (row["label"], row["size"]) == (3, (8, 8))
    assert torch.equal(row["view"](None), processor(images=noise(), return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize("processor", [VIT, CLIP])
def test_a_seed_draws_the_same_crop_again_and_another_one_another(processor):
    first, again = (rows_of([noise(40, 40)], processor)[0] for _ in range(2))
    assert torch.equal(first["view"](5), again["view"](5))
    assert not torch.equal(first["view"](5), first["view"](6))
    assert first["view"](5).shape == (3, 8, 8)


def test_images_of_one_batch_are_cropped_each_in_its_own_way():
    one, other = rows_of([noise(40, 40), noise(40, 40)])
    assert not torch.equal(one["view"](5), other["view"](5))


def test_without_a_share_nothing_is_cropped():
    (row,) = rows_of([noise()], scale=None)
    assert torch.equal(row["view"](5), row["view"](None))
    (plain,) = image_rows([Example("", 0, 0, image=noise())], VIT)
    assert torch.equal(plain["view"](5), plain["view"](None))


@pytest.mark.parametrize("processor", [VIT, CLIP, LARGER])
def test_a_view_is_the_box_resized_bicubically_and_normalised_as_ever(processor):
    image = noise(40, 40)
    (row,) = rows_of([image], processor)
    box = crop_box(40, 40, (0.9, 1.0), np.random.default_rng([5, 0]))
    crop = np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BICUBIC, box=box))
    mean, std = (np.array(one) for one in (processor.image_mean, processor.image_std))
    expected = ((crop / 255 - mean) / std).transpose(2, 0, 1)
    assert row["view"](5).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(100, 100), (60, 100), (100, 75)])
def test_boxes_lie_within_and_have_a_share_and_a_shape_in_bounds(height, width):
    generator = np.random.default_rng(0)
    boxes = np.array([crop_box(height, width, (0.5, 0.8), generator) for _ in range(300)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    shares, shapes = (right - left) * (bottom - top) / (height * width), (right - left) / (bottom - top)
    assert 0.49 < shares.min() < 0.55
    assert 0.75 < shares.max() < 0.81
    assert shapes.min() > 0.73
    assert shapes.max() < 1.36
    assert len(set(left)) > 5 or width == 60


def test_an_image_too_long_for_any_box_gives_its_middle():
    assert crop_box(30, 300, (0.9, 1.0), np.random.default_rng(0)) == (130, 0, 170, 30)
    assert crop_box(300, 30, (0.9, 1.0), np.random.default_rng(0)) == (0, 130, 30, 170)


def test_a_picture_is_decoded_when_it_is_asked_for():
    asked = []

    def decode():
        asked.append(1)
        return noise()

    rows = image_rows([Example("", 0, 0, image=Picture(decode)) for _ in range(3)], VIT)
    assert len(asked) == 1  # the first one, for its size
    assert np.asarray(Picture(noise), np.float32).dtype == np.float32
    rows[2]["view"](None)
    assert len(asked) == 2
