"""A table as commands: what to type to fill its cells."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from tombola_cli.tables.table import Row, Table

TRAIN = ("python", "train.py")


def commands(table: Table) -> Iterator[str]:
    """One command for each run and seed, ready for a shell; finished runs are skipped by `train.py` itself."""
    for row in table.rows:
        yield f"# {row.label}" + (f": {row.note}" if row.note else "")
        for run in table.runs(row):
            for seed in row.seeds:
                yield _typed([*run, f"seed={seed}", f"table={table.name}"])


def row_commands(table: Table, row: Row) -> list[str]:
    """The whole row as one sweep where its runs differ in one word, such as the task; else one for each run."""
    seeds = "seed=" + ",".join(map(str, row.seeds))
    sweeps = _sweeps(table.runs(row))
    many = len(row.seeds) > 1 or len(sweeps) < len(table.runs(row))
    return [_typed([*(["-m"] if many else []), *words, seeds, f"table={table.name}"]) for words in sweeps]


def _sweeps(runs: Sequence[Sequence[str]]) -> list[list[str]]:
    if len({len(run) for run in runs}) != 1:
        return [list(run) for run in runs]
    places = [list(dict.fromkeys(words)) for words in zip(*runs, strict=True)]
    keys = [{word.partition("=")[0] for word in words} for words in places]
    if sum(len(words) > 1 for words in places) > 1 or any(len(names) > 1 for names in keys):
        return [list(run) for run in runs]  # a sweep would be the product of what differs
    return [[words[0] + "".join("," + word.partition("=")[2] for word in words[1:]) for words in places]]


def _typed(words: Sequence[str]) -> str:
    return shlex.join([*TRAIN, *words])
