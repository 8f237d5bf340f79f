"""One YAML a table: the list of runs and the shape of the rendering, in one place.

    title: ...
    paper: {numbers: bola.csv, table: T1}     # null: no paper prints this table
    overrides: [model=roberta_base]           # of every run
    seeds: [0, 1, 2]
    columns: [{label: MNLI, overrides: [task=glue/mnli], score: {task: glue/mnli, split: ..., metric: accuracy}}]
    mean: avg                                 # label of the column of means, or null
    rows: [{label: LoRA, overrides: [method=lora]}, {label: SpaRTA, overrides: null, note: method yet to come}]
    notes: []
    data: {glue/rte: "sha256:..."}            # what the runs of a task read from a local folder

A column of a mean over splits; the runs differ in the field, or `field: null` shows the splits of one run:

    - {label: held-in, over: {field: task.task_name, values: [a, b]}, score: {task: ..., split: each, metric: ...}}

Labels of rows and columns are the paper's own: they find its numbers. `data` finds records of local data on a machine
that does not have it: a run's id comes from the data's checksum, and the committed tables are to be rendered anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tombola_cli.config.choices import GROUPS


class TableError(ValueError):
    """A table's YAML that cannot be used: the message names the file and the field."""


@dataclass(frozen=True)
class Selector:
    """Which of a run's scores a column shows."""

    task: str
    split: str
    metric: str


@dataclass(frozen=True)
class Over:
    """The splits that a column is the mean of, and the field that has each one's name in its run; None: one run."""

    field: str | None
    values: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column and what its runs add to the command; columns with the same overrides show scores of one run."""

    label: str
    score: Selector
    overrides: tuple[str, ...] = ()
    over: Over | None = None

    def parts(self) -> list[Column]:
        """The columns of one score each whose unweighted mean this one is: itself, unless it is `over` something."""
        if self.over is None:
            return [self]
        field, parts = self.over.field, []
        for value in self.over.values:
            words = (f"{field}={value}",) if field else ()
            parts.append(Column(value, replace(self.score, split=value), (*self.overrides, *words)))
        return parts


@dataclass(frozen=True)
class Row:
    """A row; `overrides` is None where no run is possible yet, and `note` then says why."""

    label: str
    overrides: tuple[str, ...] | None
    seeds: tuple[int, ...]
    note: str | None = None


@dataclass(frozen=True)
class Table:
    """A whole table; `paper` is (CSV file in results/paper, table in it), `data` a checksum by task."""

    name: str
    title: str
    paper: tuple[str, str] | None
    overrides: tuple[str, ...]
    columns: tuple[Column, ...]
    mean: str | None
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    data: Mapping[str, str] = field(default_factory=dict)

    def runs(self, row: Row) -> list[tuple[str, ...]]:
        """The row's distinct runs as override lists, without their seeds; none where there is no method yet."""
        if row.overrides is None:
            return []
        return list(dict.fromkeys(self.run(row, part) for column in self.columns for part in column.parts()))

    def run(self, row: Row, column: Column) -> tuple[str, ...]:
        """The overrides of the run that a cell shows, without its seed: method, model, task, training, then fields."""
        words = [*self.overrides, *(row.overrides or ()), *column.overrides]
        order = {group: place for place, group in enumerate(GROUPS)}
        return tuple(sorted(words, key=lambda word: order.get(word.partition("=")[0], len(order))))


def load_table(path: Path) -> Table:
    """The table that a YAML describes; its name is the file's.

    Raises:
        TableError: a field is missing, unknown or of the wrong type.
    """
    data = _fields(yaml.safe_load(path.read_text(encoding="utf-8")), TABLE_FIELDS, str(path))
    seeds = tuple(data["seeds"])
    return Table(
        name=path.stem,
        title=data["title"],
        paper=_paper(data["paper"], f"{path}: paper"),
        overrides=tuple(data["overrides"]),
        columns=tuple(_column(one, f"{path}: columns[{index}]") for index, one in enumerate(data["columns"])),
        mean=data["mean"],
        rows=tuple(_row(one, seeds, f"{path}: rows[{index}]") for index, one in enumerate(data["rows"])),
        notes=tuple(data["notes"]),
        data=data["data"] or {},
    )


# Field -> the types it takes; a field that takes None may be left out.
TABLE_FIELDS: dict[str, tuple[type, ...]] = {
    **{"title": (str,), "paper": (dict, type(None)), "overrides": (list,), "seeds": (list,), "columns": (list,)},
    **{"mean": (str, type(None)), "rows": (list,), "notes": (list,)},
    "data": (dict, type(None)),
}
COLUMN_FIELDS: dict[str, tuple[type, ...]] = {
    **{"label": (str,), "score": (dict,), "overrides": (list, type(None)), "over": (dict, type(None))}
}
OVER_FIELDS: dict[str, tuple[type, ...]] = {"field": (str, type(None)), "values": (list,)}
EACH = "each"
ROW_FIELDS: dict[str, tuple[type, ...]] = {
    **{"label": (str,), "overrides": (list, type(None)), "seeds": (list, type(None)), "note": (str, type(None))}
}
SCORE_FIELDS: dict[str, tuple[type, ...]] = {"task": (str,), "split": (str,), "metric": (str,)}
PAPER_FIELDS: dict[str, tuple[type, ...]] = {"numbers": (str,), "table": (str,)}


def _column(data: Any, where: str) -> Column:
    data = _fields(data, COLUMN_FIELDS, where)
    score = _fields(data["score"], SCORE_FIELDS, f"{where}: score")
    over = None if data["over"] is None else _over(data["over"], f"{where}: over")
    if (score["split"] == EACH) != (over is not None):
        raise TableError(f"{where}: `over` and `split: {EACH}` belong together, got split {score['split']!r}")
    return Column(data["label"], Selector(**score), tuple(data["overrides"] or ()), over)


def _over(data: Any, where: str) -> Over:
    data = _fields(data, OVER_FIELDS, where)
    if not data["values"]:
        raise TableError(f"{where}: values: expected at least one")
    return Over(data["field"], tuple(map(str, data["values"])))


def _row(data: Any, seeds: tuple[int, ...], where: str) -> Row:
    data = _fields(data, ROW_FIELDS, where)
    if data["overrides"] is None and not data["note"]:
        raise TableError(f"{where}: a row without overrides needs a note that says why it cannot be run")
    overrides = None if data["overrides"] is None else tuple(data["overrides"])
    return Row(data["label"], overrides, tuple(data["seeds"] or seeds), data["note"])


def _paper(data: Any, where: str) -> tuple[str, str] | None:
    if data is None:
        return None
    data = _fields(data, PAPER_FIELDS, where)
    return data["numbers"], data["table"]


def _fields(data: Any, expected: Mapping[str, tuple[type, ...]], where: str) -> dict[str, Any]:
    """`data` with every expected field, the optional ones as None."""
    if not isinstance(data, dict):
        raise TableError(f"{where}: expected the fields {', '.join(expected)}, got {data!r}")
    unknown = [name for name in data if name not in expected]
    if unknown:
        raise TableError(f"{where}: unknown field {unknown[0]!r}; expected {', '.join(expected)}")
    for name, kinds in expected.items():
        if not isinstance(data.get(name), kinds):
            problem = f"got {data[name]!r}" if name in data else "it is missing"
            raise TableError(f"{where}: {name}: expected {' or '.join(kind.__name__ for kind in kinds)}, {problem}")
    return {name: data.get(name) for name in expected}
