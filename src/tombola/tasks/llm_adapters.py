"""Files in the layout of LLM-Adapters: rows of `instruction`, `input` (always empty), `output` and `answer`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tombola.tasks.example import DataError
from tombola.tasks.sources import locate, read_rows

FIELDS = {"instruction": str, "input": str, "output": str, "answer": str}
SPLIT_SEED = 42  # LLM-Adapters' own, finetune.py
T = TypeVar("T")


def rows_of(task: str, file: str, *, data_dir: str | None, url: str | None) -> list[dict[str, Any]]:
    """The checked rows of one file."""
    path = locate(task, file, data_dir=data_dir, url=url)
    rows = read_rows(task, path, FIELDS)
    for number, row in enumerate(rows):
        if row["input"]:
            raise DataError(
                f"{task}: {path} row {number} has an input; expected '', for the template has no place for it"
            )
    return rows


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
