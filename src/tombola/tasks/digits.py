"""`textual_digits`: scikit-learn's 8 x 8 handwritten digits as text. Embedded, real and small: the default task.

Encoders classify the 64 levels, set apart by spaces so that each is one token. Decoders read 8 lines of 8 characters
and answer after "The digit is " by one token.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from tombola.tasks.example import AnswersBy, DataError, Example, TextFormat
from tombola.tasks.grids import GRID_FORMAT, ONE_TOKEN, accuracy, grid_example, to_lines

TEST_ROWS = 360
SPLIT_SEED = 42


def quantise(pixels: Float[ndarray, "*any"]) -> Int[ndarray, "*any"]:
    """Levels 0 to 9 of ink 0 to 16: round(9v/16), halves to even."""
    return np.rint(9 * pixels / 16).astype(int)


class TextualDigits:
    """1,437 training and 360 test images, split once and for all with the classes' shares kept."""

    name = "textual_digits"
    version = 1
    generation = ONE_TOKEN

    def __init__(self, *, role: str) -> None:
        if role not in ("encoder", "decoder"):
            raise DataError(f"textual_digits is text: expected a model of role encoder or decoder, got {role}")
        self.answers_by: AnswersBy = "classify" if role == "encoder" else "generate"
        self.format = TextFormat() if role == "encoder" else GRID_FORMAT
        self.data_note: str | None = None

    @cached_property
    def _split(self) -> tuple[list[Example], list[Example]]:
        from sklearn.datasets import load_digits  # seconds to import, needed by this task alone
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        levels = quantise(digits.images)
        parts = train_test_split(
            levels, digits.target, test_size=TEST_ROWS, stratify=digits.target, random_state=SPLIT_SEED
        )
        train_levels, test_levels, train_labels, test_labels = parts
        return self._examples(train_levels, train_labels), self._examples(test_levels, test_labels)

    def _examples(self, levels: Int[ndarray, "rows 8 8"], labels: Int[ndarray, "rows"]) -> list[Example]:
        if self.answers_by == "generate":
            return [grid_example(to_lines(grid), int(label)) for grid, label in zip(levels, labels, strict=True)]
        texts = [" ".join(str(level) for level in grid.ravel().tolist()) for grid in levels]
        return [Example(text, int(label), int(label)) for text, label in zip(texts, labels, strict=True)]

    def train(self) -> Sequence[Example]:
        """1,437 images."""
        return self._split[0]

    def validation(self) -> Sequence[Example]:
        """None: `training.validation_rows` cuts some from the training set."""
        return []

    def tests(self) -> dict[str, Sequence[Example]]:
        """360 images."""
        return {"test": self._split[1]}

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """Accuracy; for decoders an answer that is no digit is wrong."""
        return accuracy(examples, answers)
