"""A small repository with one table, and records made to order: nothing here reads the real conf/ or results/."""

from pathlib import Path
from typing import Any

import pytest

from tombola_cli.records import Record, Score, run_id, sources, write_record

TABLE = """
title: A small table
paper: {numbers: paper.csv, table: T1}
overrides: [model=small]
seeds: [0, 1]
columns:
  - {label: One, overrides: [task=one], score: {task: one, split: test, metric: accuracy}}
  - {label: Two, overrides: [task=two], score: {task: two, split: test, metric: accuracy}}
mean: avg
rows:
  - {label: Ours, overrides: [method=ours]}
  - {label: Other, overrides: [method=other, training.lr=0.5], note: another rate, seeds: [0]}
  - {label: Later, overrides: null, note: method yet to come}
notes: ["Mind the | gap."]
"""
NUMBERS = """table,row,column,value,unit
T1,Ours,params,0.3M,parameters
T1,Ours,One,50.0,percent
T1,Ours,Two,60.0,percent
T1,Ours,avg,55.0,percent
T1,Later,One,70.5,percent
T2,Ours,One,99.0,percent
"""


def small_compose(overrides: list[str]) -> dict[str, Any]:
    """What the overrides say, and defaults; it stands for the real composition, which has its own tests."""
    said = dict(word.split("=", 1) for word in overrides)
    return {
        "method": {"name": said.get("method", "none")},
        "model": {"name": said["model"], "source": "package", "weights": {"sha256": "00"}},
        "task": {"name": said["task"], "version": 1},
        "training": {"lr": float(said.get("training.lr", 0.1))},
        "seed": int(said["seed"]),
    }


@pytest.fixture
def compose():
    return small_compose


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "table").mkdir(parents=True)
    (tmp_path / "conf" / "table" / "small.yaml").write_text(TABLE)
    (tmp_path / "results" / "paper").mkdir(parents=True)
    (tmp_path / "results" / "paper" / "paper.csv").write_text(NUMBERS)
    return tmp_path


@pytest.fixture
def add(root: Path):
    """`add("method=ours", "task=one", 0, 0.5)` writes the record of that run."""

    def write(method: str, task: str, seed: int, value: float, *more: str, status: str = "ok", **costs: Any) -> Record:
        config = small_compose([method, "model=small", task, *more, f"seed={seed}"])
        cost = {"trainable": 1000, "head": 20, "stored_bytes": 1, "seconds": {"train": 90.0, "evaluate": 10.0}}
        record = Record(
            id=run_id(config, sources(config)),
            started="2026-01-31T12:00:00+00:00",
            finished="2026-01-31T12:05:00+00:00",
            status=status,
            config=config,
            scores=[Score(config["task"]["name"], "test", "accuracy", value, 100)],
            cost={**cost, "tokens_per_second": None, "peak_bytes": 2**30, **costs},
            provenance=dict.fromkeys(("commit", "dirty", "packages", "hardware", "model", "data", "command")),
        )
        write_record(root / "results" / "records", record)
        return record

    return write
