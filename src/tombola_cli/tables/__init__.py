"""Tables: records and the papers' numbers side by side. Never imports torch."""

from tombola_cli.tables.cells import Cell, FilledRow, Run, fill
from tombola_cli.tables.commands import commands, row_commands
from tombola_cli.tables.main import filled_rows, find_table, main
from tombola_cli.tables.paper import PaperError, Printed, printed_numbers
from tombola_cli.tables.render import markdown, terminal
from tombola_cli.tables.table import Column, Over, Row, Selector, Table, TableError, load_table
from tombola_cli.tables.tasks import tasks_main, tasks_markdown

__all__ = [
    "Cell",
    "Column",
    "FilledRow",
    "Over",
    "PaperError",
    "Printed",
    "Row",
    "Run",
    "Selector",
    "Table",
    "TableError",
    "commands",
    "fill",
    "filled_rows",
    "find_table",
    "load_table",
    "main",
    "markdown",
    "printed_numbers",
    "row_commands",
    "tasks_main",
    "tasks_markdown",
    "terminal",
]
