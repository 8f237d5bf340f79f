"""Rows of FLAN tasks: from a folder of three files and a list, or from the hub's flat table of all tasks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tombola.tasks.example import DataError
from tombola.tasks.parquet import hub_rows
from tombola.tasks.sources import check_fields, locate, read_json, read_rows

SPLITS = ("train", "validation", "test")
FIELDS = {"task_name": str, "source": str, "target": str}
HUB_FILES = "data/train-*.parquet"  # one table; its column `split` says which rows are held out

Rows = dict[str, dict[str, list[tuple[str, str]]]]
"""Split -> task -> (source, target)."""


def folder_tasks(task: str, data_dir: str) -> dict[str, list[str]]:
    """The lists `held_in` and `held_out` of the folder's tasks.json."""
    listed = _listed(task, data_dir)
    return {name: listed[name] for name in ("held_in", "held_out")}


def folder_rows(task: str, data_dir: str, wanted: Sequence[str]) -> Rows:
    """The rows of the wanted tasks. Raises DataError for a row or a number of rows that is not as tasks.json says."""
    expected = {one["task_name"]: one["rows"] for one in _listed(task, data_dir)["tasks"]}
    rows: Rows = {}
    for split in SPLITS:
        path = locate(task, f"{split}.jsonl.gz", data_dir=data_dir, url=None)
        found: dict[str, list[tuple[str, str]]] = {name: [] for name in wanted}
        for number, row in enumerate(read_rows(task, path, FIELDS)):
            for field in ("source", "target"):
                if not row[field].strip():
                    raise DataError(f"{task}: {path} row {number} has an empty {field}; expected text")
            if row["task_name"] in found:
                found[row["task_name"]].append((row["source"], row["target"]))
        for name, there in found.items():
            stated = expected.get(name, {}).get(split)
            if len(there) != stated:
                raise DataError(f"{task}: {path} has {len(there)} rows of {name}; tasks.json beside it says {stated}")
        rows[split] = found
    return rows


def hub_task_rows(task: str, url: str | None, wanted: Sequence[str]) -> tuple[Rows, str]:
    """The rows of the wanted tasks, and a note for the record: which commit they are of, and how many had no text."""
    if url is None:
        raise DataError(f"{task}: no pinned source: type task.data_dir=DIR, a folder with tasks.json")
    columns = ["task_name", "source", "target", "split"]
    table, commit = hub_rows(task, url, HUB_FILES, columns=columns, filters=[("task_name", "in", list(wanted))])
    rows, left_out = _sorted_out(task, url, table, wanted)
    for split in SPLITS:
        for name in wanted:
            if not rows[split][name]:
                raise DataError(f"{task}: {url} has no {split} rows of {name}; expected some in {HUB_FILES}")
    without = f"; {left_out} rows without a source or a target are left out" if left_out else ""
    return rows, f"rows of {url} at commit {commit}{without}"


def _sorted_out(task: str, url: str, table: Iterable[Mapping[str, Any]], wanted: Sequence[str]) -> tuple[Rows, int]:
    rows: Rows = {split: {name: [] for name in wanted} for split in SPLITS}
    left_out = 0
    for number, row in enumerate(table):
        if row["split"] not in rows:
            where = f"{url} row {number} of those of {', '.join(wanted)}"
            raise DataError(f"{task}: {where} has split = {row['split']!r}; expected {', '.join(SPLITS)}")
        if not (row["source"] or "").strip() or not (row["target"] or "").strip():
            left_out += 1
        else:
            rows[row["split"]][row["task_name"]].append((row["source"], row["target"]))
    return rows, left_out


def _listed(task: str, data_dir: str) -> dict[str, Any]:
    path = locate(task, "tasks.json", data_dir=data_dir, url=None)
    listed = read_json(task, path)
    check_fields(task, path, 0, listed, {"held_in": list, "held_out": list, "tasks": list})
    for number, one in enumerate(listed["tasks"]):
        check_fields(task, path, number, one, {"task_name": str, "rows": dict})
    return dict(listed)
