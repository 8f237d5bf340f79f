"""`scripts/tables.py`: render tables, check that the committed ones are current, list a table's commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable

from tombola_cli.config.choices import REPOSITORY
from tombola_cli.config.compose import compose
from tombola_cli.tables.cells import Compose, FilledRow, fill
from tombola_cli.tables.commands import commands
from tombola_cli.tables.paper import printed_numbers
from tombola_cli.tables.render import markdown, terminal
from tombola_cli.tables.table import Table, TableError, load_table


def main(argv: Sequence[str] | None = None, *, root: Path = REPOSITORY, compose: Compose = compose) -> int:
    """The exit status: 0, or 1 with one line on stderr that says what is wrong."""
    options = _parser().parse_args(argv)
    try:
        return _run(options, root, compose)
    except (
        ValueError
    ) as error:  # TableError, PaperError, RecordError, SourceError, ConfigError: cause and remedy inside
        print(error, file=sys.stderr)
        return 1


def filled_rows(table: Table, records: Path, *, root: Path = REPOSITORY, compose: Compose = compose) -> list[FilledRow]:
    """The rows of `table` with what is in the folder `records`."""
    numbers = printed_numbers(root / "results" / "paper" / table.paper[0], table.paper[1]) if table.paper else {}
    return list(fill(table, records, compose, numbers))


def find_table(name: str, *, root: Path = REPOSITORY) -> Table:
    """The table of `conf/table/<name>.yaml`.

    Raises:
        TableError: there is none; the message lists those there are.
    """
    if name not in _names(root):
        raise TableError(f"there is no table {name!r}; conf/table has {', '.join(_names(root)) or 'none'}")
    return load_table(root / "conf" / "table" / f"{name}.yaml")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/tables.py", description=__doc__)
    parser.add_argument("--name", help="this table alone (default: every YAML of conf/table)")
    parser.add_argument("--records", type=Path, help="folder of records (default: results/records)")
    parser.add_argument("--out", help="with --name: Markdown file to write, or - for the terminal")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a rendered table is not current")
    parser.add_argument("--list", metavar="NAME", help="print a table's commands, one a run and seed")
    return parser


def _run(options: argparse.Namespace, root: Path, compose: Compose) -> int:
    if options.list:
        print("\n".join(commands(find_table(options.list, root=root))))
        return 0
    if options.out and not options.name:
        raise TableError("--out writes one table: add --name NAME")
    records = options.records or root / "results" / "records"
    stale = []
    for name in [options.name] if options.name else _names(root):
        table = find_table(name, root=root)
        rows = filled_rows(table, records, root=root, compose=compose)
        if options.out == "-":
            _show(terminal(table, rows))
            continue
        out = Path(options.out) if options.out else root / "results" / "tables" / f"{name}.md"
        if not _written(out, markdown(table, rows, out), check=options.check):
            stale.append(os.path.relpath(out, root))
    if stale:
        print(
            f"{', '.join(stale)}: not what the records give; run `make tables` and commit the result", file=sys.stderr
        )
    return 1 if stale else 0


def _show(table: RichTable) -> None:
    """Print the table as wide as its numbers need: a line that the window wraps is better than a digit cut off."""
    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=sys.maxsize), table).maximum
    Console(width=max(console.width, needed)).print(table)


def _written(out: Path, text: str, *, check: bool) -> bool:
    """Whether `out` has this text: after writing it, or, to check, as it is."""
    if check:
        return out.exists() and out.read_text(encoding="utf-8") == text
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return True


def _names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "conf" / "table").glob("*.yaml"))
