"""`scripts/tasks.py`: every task of conf/task with its source, rows, licence and version, as docs/tasks.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tombola_cli.config.choices import REPOSITORY, choices
from tombola_cli.config.compose import ConfigError, compose
from tombola_cli.tables.cells import Compose
from tombola_cli.tables.text import NONE

HEADER = ("Task", "Answers by", "Source", "Rows: train / validation / test", "Metrics", "Licence", "Version")
INTRO = """\
<!-- Rendered by scripts/tasks.py from conf/task: do not edit. -->

# Tasks

`python train.py task=NAME`. Source: where the rows come from unless `task.data_dir` names a folder; its revision is
part of a run's identity, and so are the checksums of a folder's files, which [conf/task](../conf/task) lists. Rows:
those of the source; a test set's name stands beside its rows where there are several. Licence: of the data, as its
source states it. Version: bumped when a prompt or a scorer changes; records carry it.
"""
HOSTS = {"hf://datasets/": "huggingface.co/datasets", "https://raw.githubusercontent.com/": "github.com"}
YET_TO_COME = "A task in *italics* composes and plans, and its loader is yet to come."


def tasks_main(argv: Sequence[str] | None = None, *, root: Path = REPOSITORY, compose: Compose = compose) -> int:
    """The exit status: 0, or 1 where the file is not current or a YAML lacks a field, with one line on stderr."""
    parser = argparse.ArgumentParser(prog="scripts/tasks.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if docs/tasks.md is not current")
    out = root / "docs" / "tasks.md"
    check = parser.parse_args(argv).check
    try:
        names = sorted(choices(root / "conf")["task"])
        text = tasks_markdown([compose([f"task={name}"])["task"] for name in names])
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if not check:
        out.write_text(text, encoding="utf-8")
    elif not out.exists() or out.read_text(encoding="utf-8") != text:
        print("docs/tasks.md: not what conf/task gives; run `make tables` and commit the result", file=sys.stderr)
        return 1
    return 0


def tasks_markdown(tasks: Sequence[Mapping[str, Any]]) -> str:
    """The text of docs/tasks.md. Raises ValueError for a task without a licence: "not stated" is one, too."""
    for task in tasks:
        if not task.get("licence"):
            raise ValueError(f"conf/task/{task['name']}.yaml: licence: missing; write `not stated` where none is")
    lines = [_line(HEADER), _line(["---"] * len(HEADER)), *(_line(_cells(task)) for task in tasks)]
    waiting = any(task["_target_"] is None for task in tasks)
    return "\n".join([INTRO, *lines, *(["", YET_TO_COME] if waiting else [])]) + "\n"


def _cells(task: Mapping[str, Any]) -> list[str]:
    name = f"`{task['name']}`" if task["_target_"] else f"*{task['name']}*"
    metrics = ", ".join(task["metrics"])
    rows = _rows(task["rows"])
    if "held_in" in task:
        rows += f", for each of {len(task['held_in']) + len(task['held_out'])} tasks at most"
    return [name, task["kind"], _source(task), rows, metrics, task["licence"], str(task["version"])]


def _source(task: Mapping[str, Any]) -> str:
    repo, revision, url = task.get("repo"), task.get("revision"), task.get("url") or ""
    if not repo:
        return f"<{url}>" if url else "embedded"
    host = next((host for start, host in HOSTS.items() if url.startswith(start)), None)
    linked = f"[{repo}](https://{host}/{repo})" if host else str(repo)
    return linked + (f" @ {str(revision)[:12]}" if revision else "")


def _rows(rows: Mapping[str, Any]) -> str:
    test = rows["test"]
    sets = [_count(number) if len(test) == 1 else f"{name} {_count(number)}" for name, number in test.items()]
    return f"{_count(rows['train'])} / {_count(rows['validation'])} / {', '.join(sets)}"


def _count(number: int | None) -> str:
    return NONE if number is None else f"{number:,}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
