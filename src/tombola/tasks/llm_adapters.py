"""Files in the layout of LLM-Adapters: rows of `instruction`, `input` (always empty), `output` and `answer`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from tombola.tasks.example import DataError, Example, TextFormat
from tombola.tasks.sources import locate, read_rows

FIELDS = {"instruction": str, "input": str, "output": str, "answer": str}
SPLIT_SEED = 42  # LLM-Adapters' own, finetune.py
T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """Where a task's files lie; `checksums` (SHA-256 by file) are those of the pinned address."""

    task: str
    data_dir: str | None
    url: str | None
    checksums: Mapping[str, str]

    def rows(self, file: str) -> list[dict[str, Any]]:
        """The checked rows of one file."""
        path = locate(self.task, file, data_dir=self.data_dir, url=self.url, sha256=self.checksums.get(file))
        rows = read_rows(self.task, path, FIELDS)
        for number, row in enumerate(rows):
            if row["input"]:
                raise DataError(
                    f"{self.task}: {path} row {number} has an input; expected '', for the template has no place for it"
                )
        return rows

    def first(self, candidates: Sequence[str]) -> str:
        """The first of `candidates` in the local folder; the very first where there is none of them, or no folder."""
        return (self.data_dir and _first_there(Path(self.data_dir).expanduser(), candidates)) or candidates[0]


def text_format(template_variant: str, train_on: str) -> TextFormat:
    """How the suites' rows become tokens."""
    if train_on not in ("all", "answer"):
        raise DataError(f"task.train_on={train_on}: expected all or answer")
    loss_on: Literal["all", "answer"] = "all" if train_on == "all" else "answer"
    return TextFormat(loss_on=loss_on, joined=template_variant == "eval_matched")


def chosen_sets(task: str, wanted: Sequence[str] | None, there: Iterable[str]) -> list[str]:
    """The names of `there` that are `wanted` (None: all), in the order of `there`."""
    names = list(there)
    unknown = [name for name in wanted or () if name not in names]
    if unknown or (wanted is not None and not wanted):
        raise DataError(f"{task}: task.test_sets=[{', '.join(wanted or ())}]; expected some of {', '.join(names)}")
    return [name for name in names if wanted is None or name in wanted]


def parts_missing(rows: Sequence[Mapping[str, Any]], folders: Mapping[str, str]) -> list[str]:
    """The names whose folder is no row's `dataset`; none where the rows do not say whence they are."""
    there = {row.get("dataset") for row in rows} - {None}
    return [name for name, folder in folders.items() if there and folder not in there]


def overlap(train: Iterable[Example], tests: Mapping[str, Sequence[Example]]) -> str | None:
    """How many test prompts are training prompts too, for the record; compared without case, spaces and punctuation."""
    known = {_words(example.prompt) for example in train}
    shared = {name: sum(_words(example.prompt) in known for example in examples) for name, examples in tests.items()}
    told = [f"{name} {number} of {len(tests[name])}" for name, number in shared.items() if number]
    return f"test rows that are training rows too: {', '.join(told)}" if told else None


def _words(prompt: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", prompt.lower()))


def choose_train_file(
    task: str, train_file: str | None, candidates: Sequence[str], *, data_dir: str | None
) -> tuple[str, str | None]:
    """The training file to read, and a note for the record where it is not the paper's (`candidates[0]`)."""
    paper = candidates[0]
    if train_file is None:
        train_file = paper if data_dir is None else _first_there(Path(data_dir).expanduser(), candidates)
    if train_file is None:
        listed = " or ".join(candidates)
        raise DataError(f"{task}: {data_dir} has no {listed}: put one there, or type task.train_file=FILE")
    if train_file == paper:
        return train_file, None
    return train_file, f"trained on {train_file}, which stands in for {paper}: other rows than the paper's"


def _first_there(folder: Path, candidates: Sequence[str]) -> str | None:
    return next((file for file in candidates if (folder / file).is_file()), None)


def split(rows: Sequence[T], validation_rows: int) -> tuple[list[T], list[T]]:
    """Training and validation rows: those that `datasets.Dataset.train_test_split(seed=42)` draws in LLM-Adapters."""
    if not 0 <= validation_rows < len(rows):
        raise DataError(f"validation_rows is {validation_rows}; expected 0 to {len(rows) - 1} of {len(rows)} rows")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows)).tolist()
    return [rows[i] for i in order[validation_rows:]], [rows[i] for i in order[:validation_rows]]
