"""What a task is made of: examples, the protocol that every task file keeps, and the one error for unusable data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

AnswersBy = Literal["generate", "choose", "classify", "regress"]

Row = dict[str, Any]
"""One training row: `input_ids` with `labels` (-100: no loss), or with `label`; or `pixel_values` with `label`; or
`view`, which makes the pixels from a seed, their `size`, and `label`.

A pair of texts has `token_type_ids` beside `input_ids`, where the tokenizer tells the two apart by them.
"""


class DataError(ValueError):
    """Data that is missing, torn or of the wrong layout: one line with the file, the row and what was expected."""


@dataclass(frozen=True)
class Shot:
    """A solved example that is shown before the question."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Example:
    """A question, the text or label to train towards, and the gold answer that `Task.measure` compares with."""

    prompt: str
    target: str | int | float
    gold: str | int | float
    choices: tuple[str, ...] = ()
    image: Any = None  # uint8 (height, width, 3), or what NumPy makes that of
    prefix: str = ""  # the words that the answer is made to start with
    shots: tuple[Shot, ...] = ()
    pair: str | None = None  # the second text of a pair, for a head


@dataclass(frozen=True)
class Generation:
    """How much may be generated for one prompt, by how many beams (1: greedy), and what ends an answer early.

    `stop_strings` are for protocols that read nothing beyond them; the text ends with the one that came.
    """

    max_new_tokens: int
    num_beams: int = 1
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextFormat:
    """How prompts and training rows become tokens.

    `chat`: wrap prompts in the tokenizer's chat template where it has one.
    `joined`: tokenise a prompt as it is tokenised in front of its answer, that is without the trailing space that
    byte-pair vocabularies join to the next word.
    `loss_on`: every token of a training row, or those of its target.
    `ends`: close a training row by EOS where that fits.
    `cut`: cut rows that are too long on the right or the left, or refuse them because what matters stands at the end.
    `special`: let the tokenizer add its special tokens, such as one that begins every text.
    `prompt_tokens`: ask with so many last tokens of a prompt; None: with all of it.
    """

    chat: bool = False
    joined: bool = False
    loss_on: Literal["all", "answer"] = "answer"
    ends: bool = True
    cut: Literal["right", "left", "never"] = "right"
    special: bool = True
    prompt_tokens: int | None = None


class Task(Protocol):
    """A data set with its prompt and its scorer. A change to either bumps `version`, which records carry."""

    name: str
    version: int
    answers_by: AnswersBy
    generation: Generation
    format: TextFormat
    data_note: str | None  # what a reader of the record must know about the data, such as a stand-in

    def train(self) -> Sequence[Example]:
        """Examples to train on."""
        ...

    def validation(self) -> Sequence[Example]:
        """Examples to select by; empty where the task has no such split."""
        ...

    def tests(self) -> dict[str, Sequence[Example]]:
        """Examples to report on, by the name of the test set."""
        ...

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """Metrics by name; shares in [0, 1], or correlations."""
        ...
