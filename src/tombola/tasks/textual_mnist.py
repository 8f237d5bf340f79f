"""`textual_mnist`: MNIST as 28 lines of 28 digit characters, answered by one token.

From RIGSA (arXiv 2511.01794, section 4.2 and Figure 5). The quantiser is not stated there: floor(10v/256), uniform
bins. 1 % of the training rows are kept for validation, as the paper does.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from tombola.tasks.example import AnswersBy, DataError, Example, Shot
from tombola.tasks.grids import GRID_FORMAT, ONE_TOKEN, accuracy, from_lines, grid_example, grid_shot, to_lines
from tombola.tasks.idx import read_idx
from tombola.tasks.sources import locate

SIDE = 28
VALIDATION_SHARE = 0.01
SPLIT_SEED = 42


def quantise(pixels: UInt8[ndarray, "*any"]) -> Int[ndarray, "*any"]:
    """Levels 0 to 9 of greys 0 to 255: floor(10v/256)."""
    return pixels.astype(int) * 10 // 256


def encode_image(pixels: UInt8[ndarray, "height width"]) -> str:
    """The image as lines of digit characters."""
    return to_lines(quantise(pixels))


def decode_image(text: str) -> UInt8[ndarray, "height width"]:
    """The image of each level's lowest grey, ceil(256 q / 10); `encode_image` gives `text` back."""
    return np.array([[-(-256 * level // 10) for level in row] for row in from_lines(text)], dtype=np.uint8)


class TextualMnist:
    """59,400 training, 600 validation and 10,000 test images; `shots` solved ones stand before each question."""

    name = "textual_mnist"
    version = 1
    generation = ONE_TOKEN
    format = GRID_FORMAT

    def __init__(
        self,
        *,
        role: str = "decoder",
        data_dir: str | None = None,
        url: str | None = None,
        checksums: Mapping[str, str] | None = None,
        shots: int = 0,
    ) -> None:
        if role != "decoder":
            raise DataError(f"textual_mnist is answered by generation: expected a model of role decoder, got {role}")
        self.answers_by: AnswersBy = "generate"
        self.data_note: str | None = None
        self.data_dir, self.url, self.checksums, self.shots = data_dir, url, checksums or {}, shots
        images, labels = self._read("train")
        order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
        kept = round(VALIDATION_SHARE * len(labels))
        self._solved = self._draw_shots(images[order[kept:]], labels[order[kept:]])
        self._validation = images[order[:kept]], labels[order[:kept]]
        self._train = images[order[kept:]], labels[order[kept:]]
        self._test = self._read("t10k")

    def _read(self, part: str) -> tuple[UInt8[ndarray, "rows 28 28"], UInt8[ndarray, "rows"]]:
        arrays = []
        for file, dimensions in ((f"{part}-images-idx3-ubyte.gz", 3), (f"{part}-labels-idx1-ubyte.gz", 1)):
            path = locate(self.name, file, data_dir=self.data_dir, url=self.url)
            arrays.append(read_idx(self.name, path, dimensions, self.checksums.get(file)))
        images, labels = arrays
        if len(images) != len(labels):
            raise DataError(f"{self.name}: {part} has {len(images)} images but {len(labels)} labels")
        if images.shape[1:] != (SIDE, SIDE):
            raise DataError(f"{self.name}: {part} has images of {images.shape[1:]} pixels; expected ({SIDE}, {SIDE})")
        if len(no_digit := np.flatnonzero(labels > 9)):
            row = no_digit[0]
            raise DataError(f"{self.name}: {part} labels row {row} has label {labels[row]}; expected 0 to 9")
        return images, labels

    def _draw_shots(self, images: UInt8[ndarray, "rows 28 28"], labels: UInt8[ndarray, "rows"]) -> tuple[Shot, ...]:
        """The same solved images for every question, drawn once from the training rows."""
        if not 0 <= self.shots <= len(labels):
            raise DataError(f"{self.name}: task.shots={self.shots}; expected 0 to {len(labels)}")
        drawn = np.random.default_rng(SPLIT_SEED + 1).permutation(len(labels))[: self.shots]
        return tuple(grid_shot(grid_example(encode_image(images[i]), int(labels[i]))) for i in drawn)

    def _examples(self, images: UInt8[ndarray, "rows 28 28"], labels: UInt8[ndarray, "rows"]) -> list[Example]:
        pairs = zip(images, labels, strict=True)
        return [grid_example(encode_image(image), int(label), self._solved) for image, label in pairs]

    @cached_property
    def _train_examples(self) -> list[Example]:
        return self._examples(*self._train)

    def train(self) -> Sequence[Example]:
        """99 % of the 60,000 training images."""
        return self._train_examples

    def validation(self) -> Sequence[Example]:
        """1 % of the training images."""
        return self._examples(*self._validation)

    def tests(self) -> dict[str, Sequence[Example]]:
        """10,000 images."""
        return {"test": self._examples(*self._test)}

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """Accuracy; an answer that is no digit is wrong."""
        return accuracy(examples, answers)
