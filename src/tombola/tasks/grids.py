"""Images as grids of digit characters, and the question that is asked about them."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int
from numpy import ndarray

from tombola.tasks.example import DataError, Example, Generation, Shot, TextFormat

# The paper's own sentence is in a figure without text (RIGSA, Figure 5); known are the ChatML turns and the prefix.
QUESTION = (
    "The grid below is an image of a handwritten digit. Each character is one pixel, "
    "from 0 (background) to 9 (ink). Which digit from 0 to 9 does it show?"
)
PREFIX = "The digit is "

ONE_TOKEN = Generation(max_new_tokens=1)
# Loss on the one answer token; the answer stands at the end, so that no row can be cut.
GRID_FORMAT = TextFormat(chat=True, loss_on="answer", ends=False, cut="never")


def to_lines(levels: Int[ndarray, "height width"]) -> str:
    """Levels 0 to 9 as one line of characters a row."""
    return "\n".join("".join(str(level) for level in row) for row in levels.tolist())


def from_lines(text: str) -> list[list[int]]:
    """The levels that `to_lines` wrote."""
    return [[int(character) for character in line] for line in text.split("\n")]


def grid_example(lines: str, label: int, shots: tuple[Shot, ...] = ()) -> Example:
    """The question for one grid, to be answered by one digit."""
    return Example(f"{QUESTION}\n\n{lines}", str(label), str(label), prefix=PREFIX, shots=shots)


def grid_shot(example: Example) -> Shot:
    """A solved grid, to be shown before a question."""
    return Shot(example.prompt, str(example.target))


def accuracy(examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
    """Share of answers that are the gold one; whatever else was said is wrong."""
    if not examples:
        raise DataError("no examples to measure: expected at least one")
    right = sum(
        answer.strip() == example.gold if isinstance(answer, str) else answer == example.gold
        for example, answer in zip(examples, answers, strict=True)
    )
    return {"accuracy": right / len(examples)}
