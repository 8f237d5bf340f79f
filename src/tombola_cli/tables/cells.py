"""A table filled from records: each cell's runs are found by composing their config and computing their id."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tombola_cli.records import Record, read_record, run_id, sources
from tombola_cli.records.record_json import UNBOUNDED_METRICS
from tombola_cli.records.sources import weights_source
from tombola_cli.records.store import attempts
from tombola_cli.tables.paper import Printed
from tombola_cli.tables.table import Row, Selector, Table

Compose = Callable[[Sequence[str]], dict[str, Any]]
# The paper's parameter counts are transcribed as a column of this name.
PARAMETERS = "params"


@dataclass(frozen=True)
class Run:
    """A run that a row asks for and the record it has, if any: the latest ok one, else the latest attempt."""

    seed: int
    record: Record | None
    file: Path | None


@dataclass(frozen=True)
class Cell:
    """Scores by seed (percent metrics in percent), the status of seeds that have none, and the evidence."""

    values: Mapping[int, float]
    statuses: Mapping[int, str]
    files: Mapping[int | str, Path]  # by seed, or by seed and number of the run where a cell has several
    paper: Printed | None

    @property
    def mean(self) -> float | None:
        """Over the seeds that have a score."""
        return statistics.mean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """Of the sample (n - 1), so from two seeds on."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's number, in points."""
        if self.mean is None or self.paper is None or self.paper.percent is None:
            return None
        return self.mean - self.paper.percent


@dataclass(frozen=True)
class FilledRow:
    """A row with its cells, the mean over them, and its runs, whose costs are shown."""

    row: Row
    cells: tuple[Cell, ...]
    mean: Cell | None
    runs: tuple[Run, ...]
    parameters: Printed | None


def fill(
    table: Table, folder: Path, compose: Compose, numbers: Mapping[tuple[str, str], Printed]
) -> tuple[FilledRow, ...]:
    """The table's rows from the records in `folder` and the paper's `numbers`."""
    return tuple(_filled(table, row, folder, compose, numbers) for row in table.rows)


def _filled(
    table: Table, row: Row, folder: Path, compose: Compose, numbers: Mapping[tuple[str, str], Printed]
) -> FilledRow:
    found = {run: tuple(_find(run, seed, table.data, folder, compose) for seed in row.seeds) for run in table.runs(row)}
    cells = tuple(
        _over(
            [_cell(found.get(table.run(row, part), ()), part.score, None) for part in column.parts()],
            numbers.get((row.label, column.label)),
        )
        for column in table.columns
    )
    mean = _mean_cell(cells, numbers.get((row.label, table.mean))) if table.mean else None
    runs = tuple(run for one in found.values() for run in one)
    return FilledRow(row, cells, mean, runs, numbers.get((row.label, PARAMETERS)))


def _find(overrides: Sequence[str], seed: int, data: Mapping[str, str], folder: Path, compose: Compose) -> Run:
    config = compose([*overrides, f"seed={seed}"])
    known = data.get(config["task"]["name"])
    found = {"weights": weights_source(config["model"], seed), "data": known} if known else sources(config)
    identity = run_id(config, found)
    files = attempts(folder, identity)
    if not files:
        return Run(seed, None, None)
    records = [read_record(file) for file in files]
    good = [index for index, record in enumerate(records) if record.status == "ok"]
    chosen = good[-1] if good else -1
    return Run(seed, records[chosen], files[chosen])


def _cell(runs: Sequence[Run], selector: Selector, paper: Printed | None) -> Cell:
    values: dict[int, float] = {}
    statuses: dict[int, str] = {}
    for run in runs:
        if run.record is None:
            continue
        value = _score(run.record, selector) if run.record.status == "ok" else None
        if value is not None:
            values[run.seed] = value
        else:
            statuses[run.seed] = "no such score" if run.record.status == "ok" else run.record.status
    files: dict[int | str, Path] = {run.seed: run.file for run in runs if run.file is not None}
    return Cell(values, statuses, files, paper)


def _over(parts: Sequence[Cell], paper: Printed | None) -> Cell:
    """The cell of a column: its one score's, or the mean over its scores for each seed that has all of them."""
    if len(parts) == 1:
        return replace(parts[0], paper=paper)
    values = _mean_cell(parts, None).values
    seeds = sorted({seed for part in parts for seed in (*part.values, *part.statuses)} - set(values))
    statuses = {seed: f"{sum(seed in part.values for part in parts)} of {len(parts)} scores" for seed in seeds}
    if all(part.files == parts[0].files for part in parts):  # of one run
        return Cell(values, statuses, parts[0].files, paper)
    files: dict[int | str, Path] = {
        f"{seed}.{number}": file for number, part in enumerate(parts, 1) for seed, file in part.files.items()
    }
    return Cell(values, statuses, files, paper)


def _score(record: Record, selector: Selector) -> float | None:
    wanted = (selector.task, selector.split, selector.metric)
    for score in record.scores:
        if (score.task, score.split, score.metric) == wanted:
            return score.value if score.metric in UNBOUNDED_METRICS else 100 * score.value
    return None


def _mean_cell(cells: Sequence[Cell], paper: Printed | None) -> Cell:
    """The unweighted mean over columns, for each seed that has all of them: its std is over whole repetitions."""
    whole = set.intersection(*(set(cell.values) for cell in cells))
    values = {seed: statistics.mean(cell.values[seed] for cell in cells) for seed in sorted(whole)}
    return Cell(values, {}, {}, paper)
