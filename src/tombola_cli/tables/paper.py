"""The papers' numbers, transcribed in `results/paper/*.csv`: table, row, column, value as printed, unit."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

FIELDS = ["table", "row", "column", "value", "unit"]


class PaperError(ValueError):
    """A file of paper numbers that cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class Printed:
    """A number as its paper prints it; `unit` is percent, points, parameters, layers or percent of parameters."""

    text: str
    unit: str

    @property
    def percent(self) -> float | None:
        """The value of a percentage; counts such as 0.3M are shown and not computed with."""
        return float(self.text) if self.unit == "percent" else None


def printed_numbers(path: Path, table: str) -> dict[tuple[str, str], Printed]:
    """(row, column) -> number, for one table of one paper.

    Raises:
        PaperError: a line is not of the five fields, comes twice, or the table is not in the file.
    """
    numbers: dict[tuple[str, str], Printed] = {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        if next(lines, None) != FIELDS:
            raise PaperError(f"{path}: line 1: expected the header {','.join(FIELDS)}")
        for line in lines:
            where = f"{path}: line {lines.line_num}"
            if len(line) != len(FIELDS):
                raise PaperError(f"{where}: expected {len(FIELDS)} fields, got {len(line)}")
            name, row, column, text, unit = line
            if name != table:
                continue
            if (row, column) in numbers:
                raise PaperError(f"{where}: {table}, {row}, {column} comes twice")
            numbers[row, column] = Printed(text, unit)
    if not numbers:
        raise PaperError(f"{path}: no table {table!r}")
    return numbers
