"""A filled table as Markdown, with links to its evidence and the commands that fill it, or for the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from tombola_cli.tables.cells import Cell, FilledRow
from tombola_cli.tables.commands import row_commands
from tombola_cli.tables.table import Table
from tombola_cli.tables.text import cost_texts, header, legend, score_text


def markdown(table: Table, rows: Sequence[FilledRow], out: Path) -> str:
    """The text of the file `out`, to which links are relative. It has no date: the same records give the same text."""
    links = _Links(out.parent)
    body = [_markdown_row(table, row, links) for row in rows]
    lines = [
        *("<!-- Rendered by scripts/tables.py from conf/table and results/records: do not edit. -->", ""),
        *(f"# {table.title}", "", legend(table), ""),
        *(_line(header(table)), _line(["---"] * len(header(table))), *body, ""),
        *(f"- {note}" for note in table.notes),
        *([""] if table.notes else []),
        *("Commands:", "", *_command_lines(table)),
        *(["", *links.definitions()] if links.files else []),
    ]
    return "\n".join(lines) + "\n"


def terminal(table: Table, rows: Sequence[FilledRow]) -> RichTable:
    """The same cells without links and stacked, so that a wide table fits."""
    shown = RichTable(title=table.title, caption=legend(table), caption_justify="left")
    for index, title in enumerate(header(table)):
        shown.add_column(title, justify="right" if index else "left", no_wrap=index == 0)
    for row in rows:
        cells = [*row.cells, *([row.mean] if row.mean else [])]
        texts = [*(score_text(cell, paper=bool(table.paper)) for cell in cells), *cost_texts(row)]
        shown.add_row(row.row.label, *(text.replace(" · ", "\n") for text in texts))
    return shown


class _Links:
    """Reference links `[0][r1]`: record files numbered in order of appearance, so that cells stay readable as text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, str] = {}

    def of(self, cell: Cell) -> str:
        return " ".join(f"[{seed}][{self._name(file)}]" for seed, file in cell.files.items())

    def definitions(self) -> list[str]:
        paths = {name: Path(os.path.relpath(file, self.folder)).as_posix() for file, name in self.files.items()}
        return [f"[{name}]: {path}" for name, path in paths.items()]

    def _name(self, file: Path) -> str:
        return self.files.setdefault(file, f"r{len(self.files) + 1}")


def _markdown_row(table: Table, row: FilledRow, links: _Links) -> str:
    cells = []
    for cell in [*row.cells, *([row.mean] if row.mean else [])]:
        text, evidence = score_text(cell, paper=bool(table.paper)), links.of(cell)
        cells.append(f"{text} · {evidence}" if evidence else text)
    return _line([row.row.label, *cells, *cost_texts(row)])


def _command_lines(table: Table) -> list[str]:
    lines = []
    for row in table.rows:
        note = f" ({row.note})" if row.note else ""
        typed = ", ".join(f"`{command}`" for command in row_commands(table, row))
        lines.append(f"- {row.label}{note}" + (f": {typed}" if typed else ""))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
