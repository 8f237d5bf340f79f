"""`commonsense`: LLM-Adapters' commonsense_170k and its eight test sets, as BoLA (Table 3), PiLoRA and DoRA use them.

python train.py method=bola model=llama3_8b task=commonsense

One suite: unlike math, no test set here is known to be in the training rows. Of the 22,419 test rows 3 are (1 of BoolQ,
2 of ARC-e), as far as the training rows of commonsense_51k go; `data_note` counts them for the file that is used.

Answered by generation, as the papers do, or by likelihood (`answer_by`): of the responses "the correct answer is X",
with each X that the row allows, the one of the highest summed log-probability after the prompt. The sum is not divided
by a length, for a row's responses differ in one word or digit. The metrics have names of their own, so that the two
ways never mix.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tombola.tasks.alpaca import alpaca_prompt
from tombola.tasks.commonsense_answers import RESPONSE, allowed_options, option_as_paper, option_strict
from tombola.tasks.example import AnswersBy, DataError, Example, Generation
from tombola.tasks.llm_adapters import Files, choose_train_file, chosen_sets, overlap, parts_missing, split, text_format

TRAIN_FILES = ("ft-training_set/commonsense_170k.json", "ft-training_set/commonsense_51k.jsonl.gz")
TEST_SETS = {
    "BoolQ": "boolq",
    "PIQA": "piqa",
    "SIQA": "social_i_qa",
    "HellaSwag": "hellaswag",
    "WinoGrande": "winogrande",
    "ARC-e": "ARC-Easy",
    "ARC-c": "ARC-Challenge",
    "OBQA": "openbookqa",
}  # in the order of the papers' columns, with their folders
WIKIHOW_TAG = "[title]"  # HellaSwag's WikiHow rows have it, and copies of plain text do not


class Commonsense:
    """Questions answered by naming one of the options that they list."""

    name = "commonsense"
    version = 1

    def __init__(
        self,
        *,
        role: str = "decoder",
        data_dir: str | None = None,
        url: str | None = None,
        checksums: Mapping[str, str] | None = None,
        train_file: str | None = None,
        validation_rows: int = 120,
        test_sets: Sequence[str] | None = None,
        template_variant: Literal["train", "eval_original", "eval_matched"] = "eval_original",
        train_on: Literal["all", "answer"] = "all",
        answer_by: Literal["generate", "likelihood"] = "generate",
        num_beams: int = 4,
        max_new_tokens: int = 32,
    ) -> None:
        if role != "decoder":
            raise DataError(f"commonsense needs a model that writes: expected one of role decoder, got {role}")
        if answer_by not in ("generate", "likelihood"):
            raise DataError(f"task.answer_by={answer_by}: expected generate or likelihood")
        self.answers_by: AnswersBy = "generate" if answer_by == "generate" else "choose"
        self.generation = Generation(max_new_tokens, num_beams)
        self.format = text_format(template_variant, train_on)
        self.template_variant = template_variant
        self.files = Files(self.name, data_dir, url, checksums or {})
        self.train_file, note = choose_train_file(self.name, train_file, TRAIN_FILES, data_dir=data_dir)
        self._notes = [note]
        self._train, self._validation = self._read_train(validation_rows)
        self._tests = {name: self._read_test(name) for name in chosen_sets(self.name, test_sets, TEST_SETS)}
        self._notes.append(overlap([*self._train, *self._validation], self._tests))
        self.data_note = "; ".join(filter(None, self._notes)) or None

    def _read_train(self, validation_rows: int) -> tuple[list[Example], list[Example]]:
        rows = self.files.rows(self.train_file)
        missing = parts_missing(rows, TEST_SETS)
        if missing:
            self._notes.append(f"no training rows of {', '.join(missing)}")
        train, validation = split(list(enumerate(rows)), validation_rows)
        if self.answers_by == "choose":
            asked = [self._asked(self.train_file, number, row, "train") for number, row in validation]
        else:  # by their loss
            asked = [_taught(row) for _, row in validation]
        return [_taught(row) for _, row in train], asked

    def _read_test(self, name: str) -> list[Example]:
        file = f"dataset/{TEST_SETS[name]}/test.json"
        if name == "HellaSwag":  # the largest file: copies of it are packed
            file = self.files.first((file, f"{file}.gz"))
        rows = self.files.rows(file)
        if name == "HellaSwag" and not any(WIKIHOW_TAG in row["instruction"] for row in rows):
            self._notes.append(f"{file} is not the original: its WikiHow rows lack tags such as {WIKIHOW_TAG}")
        return [self._asked(file, number, row, self.template_variant) for number, row in enumerate(rows)]

    def _asked(self, file: str, number: int, row: dict[str, Any], variant: Any) -> Example:
        """A row to be answered, whose prompt says what may be answered."""
        allowed, answer = allowed_options(row["instruction"]), row["answer"]
        where = f"{self.name}: {file} row {number}"
        if not allowed:
            end = row["instruction"][-40:]
            raise DataError(f'{where} ends {end!r}; expected "Answer format: " and options such as answer1/answer2')
        if answer not in allowed:
            raise DataError(f"{where} has answer = {answer!r}; expected one of its options {', '.join(allowed)}")
        choices = tuple(f"{RESPONSE}{option}" for option in allowed)
        return Example(alpaca_prompt(row["instruction"], variant), f"{RESPONSE}{answer}", answer, choices)

    def train(self) -> Sequence[Example]:
        """The training rows, in their training whitespace whatever `template_variant` asks with."""
        return self._train

    def validation(self) -> Sequence[Example]:
        """The rows that LLM-Adapters holds out (120, seed 42), in training's whitespace, to select the best step by.

        By their loss, as it does; with `answer_by=likelihood` by their accuracy.
        """
        return self._validation

    def tests(self) -> dict[str, Sequence[Example]]:
        """The test sets that were asked for, in the order of the papers' columns."""
        return dict(self._tests)

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """`accuracy_as_paper` and `accuracy_strict` of texts, or `accuracy_likelihood` of numbers of options."""
        if not examples:
            raise DataError("commonsense: no examples to measure: expected at least one")
        pairs = list(zip(examples, answers, strict=True))
        if self.answers_by == "choose":
            right = sum(example.choices[answer] == example.target for example, answer in pairs)
            return {"accuracy_likelihood": right / len(pairs)}
        as_paper = sum(option_as_paper(answer, _options(example)) == example.gold for example, answer in pairs)
        strict = sum(option_strict(answer, _options(example)) == example.gold for example, answer in pairs)
        return {"accuracy_as_paper": as_paper / len(pairs), "accuracy_strict": strict / len(pairs)}


def _taught(row: dict[str, Any]) -> Example:
    return Example(alpaca_prompt(row["instruction"], "train"), row["output"], row["answer"])


def _options(example: Example) -> list[str]:
    return [choice.removeprefix(RESPONSE) for choice in example.choices]
