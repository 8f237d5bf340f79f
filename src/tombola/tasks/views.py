"""Images as a model takes them: whole to be judged by, a random crop of them to learn from.

The crop is the one of the vision towers' fine-tuning that PiLoRA's table 3 compares with (GOAT's code, after task
arithmetic's): RandomResizedCrop of 0.9 to 1 of the area, bicubic. Everything else is the model's own image processor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from tombola.tasks.example import Example, Row

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
NARROWEST, WIDEST = 3 / 4, 4 / 3  # width by height of a crop: RandomResizedCrop's defaults
TRIES = 10


@dataclass(frozen=True)
class Picture:
    """An image that is decoded each time it is asked for, so that a data set need not fit into memory.

    `crop_scale`: the least and the largest share of the area that a training view shows; None: always all of it.
    """

    decode: Callable[[], UInt8[ndarray, "height width 3"]]
    crop_scale: tuple[float, float] | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ndarray:
        """The pixels, for NumPy."""
        return self.decode() if dtype is None else self.decode().astype(dtype)


def image_rows(examples: Sequence[Example], processor: Any) -> list[Row]:
    """A row for each image: its `label`, the `size` of its views, and `view(seed)`, which makes its pixels anew.

    `view(None)` is what an evaluation sees; a seed crops, the same seed in the same way.
    """
    height, width = _whole(examples[0].image, processor).shape[-2:]
    size = (height, width)
    return [
        {"view": partial(_view, example.image, number, processor, size), "size": size, "label": example.target}
        for number, example in enumerate(examples)
    ]


def crop_box(height: int, width: int, scale: tuple[float, float], generator: np.random.Generator) -> Box:
    """A box of a random share of the image's area and a random shape, wholly inside; else the middle, as much as fits.

    As RandomResizedCrop draws it: shares evenly, shapes evenly on a logarithmic scale, ten tries.
    """
    for _ in range(TRIES):
        area = height * width * generator.uniform(*scale)
        shape = np.exp(generator.uniform(np.log(NARROWEST), np.log(WIDEST)))
        w, h = round(np.sqrt(area * shape)), round(np.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            left, top = generator.integers(width - w + 1), generator.integers(height - h + 1)
            return (left, top, left + w, top + h)
    w, h = min(width, round(height * WIDEST)), min(height, round(width / NARROWEST))
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h)


def _view(
    image: Any, number: int, processor: Any, size: tuple[int, int], seed: int | None
) -> Float[Tensor, "3 height width"]:
    scale = image.crop_scale if isinstance(image, Picture) else None
    if seed is None or scale is None:
        return _whole(image, processor)
    from PIL import Image  # needed by image tasks alone

    pixels = np.asarray(image)
    box = crop_box(pixels.shape[0], pixels.shape[1], scale, np.random.default_rng([seed, number]))
    crop = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box)
    return _made(processor, np.asarray(crop), do_resize=False, do_center_crop=False)


def _whole(image: Any, processor: Any) -> Float[Tensor, "3 height width"]:
    return _made(processor, np.asarray(image))


def _made(processor: Any, pixels: ndarray, **options: bool) -> Tensor:
    return processor(images=pixels, return_tensors="pt", **options)["pixel_values"][0]
