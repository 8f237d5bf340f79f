"""lm-eval's own task files, made to read a local copy of the rows."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tombola.tasks import Probes


def write_task_files(probes: Probes, folder: Path) -> None:
    """A YAML a probe in `folder`, which includes lm-eval's own of that name; beside it the rows, if they are local.

    `lm_eval run --include_path FOLDER --tasks piqa` reads them as well. A dict of overrides or a bare include, which
    would be shorter, lm-eval 0.4.13 does not take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for probe in probes.probes:
        local = _local(probe, probes.rows[probe], folder) if probe in probes.rows else {}
        own = {"include": str(_own_file(probe)), "task": probe, "num_fewshot": probes.shots.get(probe, 0), **local}
        (folder / f"{probe}.yaml").write_text(yaml.safe_dump(own, sort_keys=False), encoding="utf-8")


def _own_file(probe: str) -> Path:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise ValueError('lm-eval is not installed; pip install "tombola[eval]"')
    return Path(spec.origin).parent / "tasks" / probe / f"{probe}.yaml"


def _local(probe: str, rows: Mapping[str, list[dict[str, Any]]], folder: Path) -> dict[str, Any]:
    files = {}
    for split, lines in rows.items():
        path = folder / f"{probe}.{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
        files[split] = str(path)
    return {
        "dataset_path": "json",
        "dataset_name": None,
        # datasets converts the rows to Arrow, by default in the user's cache, where nothing would ever remove them
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "arrow")},
        # piqa's and hellaswag's task files name a training split, which the local copy lacks and no question needs
        **({} if "train" in files else {"training_split": None}),
    }
