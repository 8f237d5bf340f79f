"""Rows of GLUE's files: tab-separated text without quoting, or the hub's Parquet."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from tombola.tasks.example import DataError
from tombola.tasks.sources import read_bytes

BrokenRows = Literal["refuse", "leave_out"]
NO_LABEL = ("-", -1)  # what MNLI's annotators could not agree on; what the hub has in place of a hidden label


@dataclass(frozen=True)
class LabelledText:
    """A sentence, or a pair of them, with the number of its class, or its score."""

    text: str
    pair: str | None
    label: int | float


@dataclass(frozen=True)
class GlueFiles:
    """How one task's files are read.

    `columns` names the column of `text`, of `label` and, for sentence pairs, of `pair`; `header` the columns of files
    that do not name them. A label is one of `classes` (or, in Parquet, its number), or a score within `score_range`.
    """

    task: str
    columns: Mapping[str, str]
    header: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    score_range: Sequence[float] | None = None
    broken_rows: BrokenRows = "refuse"

    def read(self, path: Path) -> tuple[list[LabelledText], int]:
        """The rows of a file in its order, and how many were left out for want of a label or of a column.

        Raises DataError with the file, the row (from 0), its line and what was expected there.
        """
        rows, left_out = [], 0
        table = self._parquet(path) if path.suffix == ".parquet" else self._lines(path)
        for where, fields in table:
            if fields is None or fields["label"] in NO_LABEL:
                left_out += 1
                continue
            texts = [fields[name] for name in ("text", "pair") if name in self.columns]
            if not all(isinstance(text, str) for text in texts):
                raise DataError(f"{where} has {texts!r}; expected text in {', '.join(self.columns.values())}")
            rows.append(LabelledText(fields["text"], fields.get("pair"), self._label(where, fields["label"])))
        if not rows:
            raise DataError(f"{self.task}: {path} has no rows; expected {', '.join(self.columns.values())}")
        return rows, left_out

    def _lines(self, path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Each row's place and fields; None for a row of another number of columns, if those may be left out."""
        try:
            text = read_bytes(self.task, path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.task}: {path} is not UTF-8 text ({error})") from error
        # Quotes are part of the sentences, and splitlines() would cut at U+2028 too.
        lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        names = list(self.header or lines[0].split("\t"))
        first = 0 if self.header else 1
        places = self._places(path, names)
        for number, line in enumerate(lines[first:]):
            where = f"{self.task}: {path} row {number} (line {number + first + 1})"
            cells = line.split("\t")
            if len(cells) == len(names):
                yield where, {name: cells[place] for name, place in places.items()}
            elif self.broken_rows == "leave_out":
                yield where, None
            else:
                raise DataError(f"{where} has {len(cells)} columns; expected {len(names)}: {', '.join(names)}")

    def _parquet(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        from pyarrow import ArrowException, parquet  # comes with datasets; for the hub's files alone

        try:
            table = parquet.read_table(BytesIO(read_bytes(self.task, path)))
        except (ArrowException, OSError) as error:
            raise DataError(f"{self.task}: {path} is torn or no Parquet ({str(error).splitlines()[0]})") from error
        places = self._places(path, table.column_names)
        columns = [table.column(place).to_pylist() for place in places.values()]
        for number, cells in enumerate(zip(*columns, strict=True)):
            yield f"{self.task}: {path} row {number}", dict(zip(places, cells, strict=True))

    def _places(self, path: Path, names: Sequence[str]) -> dict[str, int]:
        """Number of the column of text, pair and label."""
        lacking = [name for name in self.columns.values() if name not in names]
        if lacking:
            raise DataError(
                f"{self.task}: {path} has the columns {', '.join(names)[:200]}; expected {', '.join(lacking)} too"
            )
        return {role: names.index(name) for role, name in self.columns.items()}

    def _label(self, where: str, found: Any) -> int | float:
        if self.classes is not None:
            if found in self.classes:
                return list(self.classes).index(found)
            if isinstance(found, int) and 0 <= found < len(self.classes):
                return found
            raise DataError(f"{where} has the label {found!r}; expected one of {', '.join(self.classes)}")
        low, high = self.score_range or (-math.inf, math.inf)
        try:
            score = float(found)
        except (TypeError, ValueError):
            score = math.nan
        if not low <= score <= high:
            raise DataError(f"{where} has the score {found!r}; expected a number from {low:g} to {high:g}")
        return score
