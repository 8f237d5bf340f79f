"""`probes/forgetting`: lm-eval's piqa, hellaswag and gsm8k, which show what fine-tuning unlearned (RIGSA, 4.3 and 5.2).

lm-eval asks and scores them (`tombola.forgetting`). Here are their settings and, where a local copy is given, its rows.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tombola.tasks.example import DataError
from tombola.tasks.sources import locate, read_bytes, read_rows

Fields = Mapping[str, type | tuple[type, ...]]

# Of each probe, lm-eval's splits: the file that a split is read from, and what its rows have.
SPLITS: dict[str, dict[str, tuple[str, Fields]]] = {
    "piqa": {"validation": ("piqa.validation.jsonl.gz", {"goal": str, "sol1": str, "sol2": str, "label": int})},
    "hellaswag": {
        "validation": (
            "hellaswag.validation.jsonl.gz",
            {"activity_label": str, "ctx": str, "endings": list, "label": (int, str)},
        )
    },
    "gsm8k": {
        "train": ("gsm8k.train.jsonl.gz", {"question": str, "answer": str}),
        "test": ("gsm8k.test.jsonl.gz", {"question": str, "answer": str}),
    },
}
ENDINGS = 4
FINAL_NUMBER = re.compile(r"#### -?[\d.,]+\s*$")


class Probes:
    """Which probes are asked, and how. Raises DataError for settings or local rows that lm-eval could not use.

    `limit` is the first so many rows of a probe (None: all), `shots` the number of solved examples before a question.
    Without `data_dir` there are no `rows`: lm-eval then fetches its data sets from the hub.
    """

    name = "probes/forgetting"
    version = 1

    def __init__(
        self,
        *,
        role: str = "decoder",
        data_dir: str | None = None,
        checksums: Mapping[str, str] | None = None,
        probes: Sequence[str] = tuple(SPLITS),
        limit: Mapping[str, int | None] | None = None,
        shots: Mapping[str, int] | None = None,
        chat_template: bool = False,
        batch_size: int = 8,
    ) -> None:
        if role != "decoder":
            raise DataError(
                f"{self.name} is answered by likelihood and text: expected a model of role decoder, got {role}"
            )
        self.data_note: str | None = None
        self.data_dir, self.checksums = data_dir, checksums or {}
        self.probes, self.limit, self.shots = tuple(probes), dict(limit or {}), dict(shots or {})
        self.chat_template, self.batch_size = chat_template, batch_size
        self._check_settings()
        self.rows = {probe: self._local(probe) for probe in self.probes} if data_dir else {}

    def _check_settings(self) -> None:
        unknown = [probe for probe in self.probes if probe not in SPLITS]
        if unknown or not self.probes:
            raise DataError(f"{self.name}: probes={list(self.probes)}; expected some of {', '.join(SPLITS)}")
        counts = {f"limit.{probe}": (number, 1) for probe, number in self.limit.items() if number is not None}
        counts |= {f"shots.{probe}": (number, 0) for probe, number in self.shots.items()}
        for field, (number, least) in {**counts, "batch_size": (self.batch_size, 1)}.items():
            if not isinstance(number, int) or number < least:
                raise DataError(f"{self.name}: {field}={number}; expected a whole number of at least {least}")
        for probe in self.probes if self.data_dir else ():
            if self.shots.get(probe) and "train" not in SPLITS[probe]:
                raise DataError(
                    f"{self.name}: shots.{probe}={self.shots[probe]}; expected 0, for the local copy has no training "
                    f"rows of {probe} to show"
                )

    def _local(self, probe: str) -> dict[str, list[dict[str, Any]]]:
        """The probe's rows by split, as lm-eval's task file reads them."""
        return {split: self._read(probe, file, fields) for split, (file, fields) in SPLITS[probe].items()}

    def _read(self, probe: str, file: str, fields: Fields) -> list[dict[str, Any]]:
        path = locate(self.name, file, data_dir=self.data_dir, url=None)
        rows = read_rows(self.name, path, fields)
        for number, row in enumerate(rows):
            if fault := FAULTS[probe](row):
                raise DataError(f"{self.name}: {path} row {number} has {fault}")
        self._check_sum(path, file, len(rows))
        if probe == "hellaswag":
            return [_with_contexts(row) for row in rows]
        return [{field: row[field] for field in fields} for row in rows]

    def _check_sum(self, path: Path, file: str, rows: int) -> None:
        expected = self.checksums.get(file)
        found = hashlib.sha256(read_bytes(self.name, path)).hexdigest()
        if expected and found != expected:
            raise DataError(
                f"{self.name}: {path}, {rows} rows, unpacked has SHA-256 {found}, expected {expected}: it is cut short "
                "or another edition; checksums=null takes it as it is"
            )


def _piqa_fault(row: dict[str, Any]) -> str | None:
    return None if row["label"] in (0, 1) else f"label = {row['label']!r}; expected 0 or 1"


def _hellaswag_fault(row: dict[str, Any]) -> str | None:
    endings = row["endings"]
    if len(endings) != ENDINGS or not all(isinstance(ending, str) for ending in endings):
        return f"endings = {endings!r}; expected {ENDINGS} texts"
    if str(row["label"]) not in map(str, range(ENDINGS)):
        return f"label = {row['label']!r}; expected 0 to {ENDINGS - 1}"
    return None


def _gsm8k_fault(row: dict[str, Any]) -> str | None:
    return (
        None if FINAL_NUMBER.search(row["answer"]) else f"answer = {row['answer']!r}; expected an end such as #### 18"
    )


FAULTS = {"piqa": _piqa_fault, "hellaswag": _hellaswag_fault, "gsm8k": _gsm8k_fault}


def _with_contexts(row: dict[str, Any]) -> dict[str, Any]:
    """lm-eval joins `ctx_a` and the capitalised `ctx_b`; where a copy keeps only `ctx`, all of it is the former.

    Other fields are left out: they differ between copies, and a column of mixed types could not be read.
    """
    divided = {"ctx_a": row["ctx_a"], "ctx_b": row["ctx_b"]} if {"ctx_a", "ctx_b"} <= row.keys() else {}
    told = {"activity_label": row["activity_label"], "ctx": row["ctx"], "endings": row["endings"]}
    return {"ctx_a": row["ctx"], "ctx_b": "", **divided, **told, "label": int(row["label"])}
