"""Cells as text, the same for Markdown and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tombola_cli.tables.cells import Cell, FilledRow
from tombola_cli.tables.table import Table

NONE = "-"
COST_COLUMNS = ("Adapter", "Head", "Stored MB", "Seconds", "Peak GiB")


def header(table: Table) -> list[str]:
    """The column titles."""
    means = [table.mean] if table.mean else []
    return ["", *(column.label for column in table.columns), *means, *COST_COLUMNS]


def legend(table: Table) -> str:
    """What a cell means."""
    paper = ", then the paper's number and our difference" if table.paper else ""
    return (
        f"Cell: mean ± sample standard deviation (number of seeds){paper}; {NONE} where no run is. "
        "Adapter and Head: trained parameters; Stored: what is saved of both, indices included; Seconds: a run's mean; "
        "Peak: a run's largest memory."
    )


def score_text(cell: Cell, *, paper: bool) -> str:
    """`46.3 ± 1.2 (3)`, with ` · 48.1 · −1.8` where the table is a paper's; a bare `-` where there is nothing."""
    parts = [_own(cell)]
    if paper and (cell.paper or parts != [NONE]):
        parts.append(cell.paper.text if cell.paper else NONE)
        parts.append(NONE if cell.difference is None else f"{cell.difference:+.1f}".replace("-", "−"))
    return " · ".join(parts)


def cost_texts(row: FilledRow) -> list[str]:
    """The row's five cost columns; the paper's count of parameters stands beside ours."""
    costs = [run.record.cost for run in row.runs if run.record is not None and run.record.status == "ok"]
    adapter = _range(_known(costs, "trainable"))
    if row.parameters:
        adapter += f" · {row.parameters.text}"
    seconds = [sum(cost["seconds"].values()) for cost in costs]
    peaks = _known(costs, "peak_bytes")
    return [
        adapter,
        _range(_known(costs, "head")),
        _range([round(stored / 1e6, 2) for stored in _known(costs, "stored_bytes")]),
        f"{sum(seconds) / len(seconds):,.0f}" if seconds else NONE,
        f"{max(peaks) / 2**30:.2f}" if peaks else NONE,
    ]


def _own(cell: Cell) -> str:
    stopped = dict.fromkeys(cell.statuses.values())
    if cell.mean is None:
        return ", ".join(stopped) or NONE
    spread = "" if cell.std is None else f" ± {cell.std:.1f}"
    seeds = "".join(f", seed {seed} {status}" for seed, status in cell.statuses.items())
    return f"{cell.mean:.1f}{spread} ({len(cell.values)}{seeds})"


def _known(costs: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [cost[name] for cost in costs if cost[name] is not None]


def _range(counts: Sequence[float]) -> str:
    """`73,728`, or `1,538 to 2,307` where a row's runs differ, as heads do between tasks."""
    bounds = sorted({min(counts), max(counts)}) if counts else []
    return " to ".join(f"{bound:,}" for bound in bounds) or NONE
