"""`math`: LLM-Adapters' math_10k and its test sets, as BoLA (Table 2), LLM-Adapters and DoRA use them.

Suite `paper`: the six of BoLA's Table 2, of which AddSub, MultiArith and SingleEq are, as LLM-Adapters' authors say,
in math_10k's own training rows by way of MAWPS. Suite `clean` leaves those out and has MAWPS.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Literal

from tombola.tasks.alpaca import alpaca_prompt
from tombola.tasks.example import AnswersBy, DataError, Example, Generation
from tombola.tasks.llm_adapters import Files, choose_train_file, chosen_sets, overlap, split, text_format
from tombola.tasks.math_answers import is_right, letter_as_paper, letter_strict, number_as_paper, number_strict
from tombola.tasks.responses import ENDS_RESPONSE

TRAIN_FILES = ("ft-training_set/math_10k.json", "ft-training_set/math_human_10k.jsonl.gz")
SUITES = {
    "paper": ("MultiArith", "GSM8K", "AddSub", "AQuA", "SingleEq", "SVAMP"),
    "clean": ("GSM8K", "AQuA", "SVAMP", "MAWPS"),
}
LETTERS = ("A", "B", "C", "D", "E")
FOLDERS = {"GSM8K": "gsm8k", "MAWPS": "mawps"}  # where they are not the name


class Math:
    """Questions answered at the end of a generated rationale, by a number, or a letter A to E for AQuA."""

    name = "math"
    version = 2  # 2: strictly, "A car" is no letter and "A or B" no answer

    def __init__(
        self,
        *,
        role: str = "decoder",
        data_dir: str | None = None,
        url: str | None = None,
        checksums: Mapping[str, str] | None = None,
        train_file: str | None = None,
        validation_rows: int = 120,
        suite: Literal["paper", "clean"] = "paper",
        test_sets: Sequence[str] | None = None,
        template_variant: Literal["train", "eval_original", "eval_matched"] = "eval_original",
        train_on: Literal["all", "answer"] = "all",
        num_beams: int = 4,
        max_new_tokens: int = 256,
    ) -> None:
        if role != "decoder":
            raise DataError(f"math is answered by generation: expected a model of role decoder, got {role}")
        if suite not in SUITES:
            raise DataError(f"task.suite={suite}: expected one of {', '.join(SUITES)}")
        self.answers_by: AnswersBy = "generate"
        # Not for beams: one that ends early would make room for another.
        self.generation = Generation(max_new_tokens, num_beams, (ENDS_RESPONSE,) if num_beams == 1 else ())
        self.format = text_format(template_variant, train_on)
        self.template_variant = template_variant
        self.files = Files(self.name, data_dir, url, checksums or {})
        self.train_file, note = choose_train_file(self.name, train_file, TRAIN_FILES, data_dir=data_dir)
        self._tests = {name: self._read_test(name) for name in chosen_sets(self.name, test_sets, SUITES[suite])}
        train, validation = split(self.files.rows(self.train_file), validation_rows)
        self._train = [_taught(row) for row in train]
        self._validation = [_taught(row) for row in validation]
        notes = [note, overlap([*self._train, *self._validation], self._tests)]
        self.data_note = "; ".join(filter(None, notes)) or None

    def _read_test(self, name: str) -> list[Example]:
        file = f"dataset/{FOLDERS.get(name, name)}/test.json"
        wanted = "a letter A to E" if name == "AQuA" else "a number"
        examples = []
        for number, row in enumerate(self.files.rows(file)):
            gold = _gold(row["answer"])
            if gold not in LETTERS if name == "AQuA" else isinstance(gold, str):
                raise DataError(f"{self.name}: {file} row {number} has answer = {row['answer']!r}; expected {wanted}")
            examples.append(self._asked(row, gold))
        return examples

    def _asked(self, row: dict[str, Any], gold: str | float) -> Example:
        return Example(alpaca_prompt(row["instruction"], self.template_variant), row["output"], gold)

    def train(self) -> Sequence[Example]:
        """The training rows, in their training whitespace whatever `template_variant` asks with."""
        return self._train

    def validation(self) -> Sequence[Example]:
        """The rows that LLM-Adapters holds out (120, seed 42), in training's whitespace: it selects by their loss."""
        return self._validation

    def tests(self) -> dict[str, Sequence[Example]]:
        """The suite's test sets, or those of them that were asked for, in the order of the paper's columns."""
        return dict(self._tests)

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """`accuracy_as_paper` and `accuracy_strict`: the two readings of `math_answers`."""
        if not examples:
            raise DataError("math: no examples to measure: expected at least one")
        as_paper = strict = 0
        for example, answer in zip(examples, answers, strict=True):
            letter = isinstance(example.gold, str)
            as_paper += is_right(example.gold, letter_as_paper(answer) if letter else number_as_paper(answer))
            strict += is_right(example.gold, letter_strict(answer) if letter else number_strict(answer))
        return {"accuracy_as_paper": as_paper / len(examples), "accuracy_strict": strict / len(examples)}


def _taught(row: dict[str, Any]) -> Example:
    return Example(alpaca_prompt(row["instruction"], "train"), row["output"], _gold(row["answer"]))


def _gold(answer: str) -> str | float:
    """A number, or the text of a letter."""
    try:
        number = float(answer.replace(",", ""))
    except ValueError:
        return answer.strip()
    return number if isfinite(number) else answer.strip()
