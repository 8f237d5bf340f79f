"""A whole composed config and a valid record, written out by hand so that the records room is tested on its own."""

from copy import deepcopy
from typing import Any

import pytest

from tombola_cli.records import Record, Score

CONFIG: dict[str, Any] = {
    "method": {
        "name": "bola",
        "_target_": "tombola.methods.Adapter",
        "config": {
            "_target_": "tombola.BolaConfig",
            "target_modules": ["query", "key", "value"],
            "k": 8,
            "in_divs": 24,
            "out_divs": 16,
            "alpha": 16.0,
            "dropout": 0.0,
            "magnitude": "literal",
            "modules_to_save": None,
        },
    },
    "model": {
        "name": "minilm",
        "source": "package",
        "repo": None,
        "revision": None,
        "path": None,
        "gated": False,
        "role": "encoder",
        "dtype": "float32",
        "targets": ["query", "key", "value"],
        "linears": ["query", "key", "value", "dense"],
        "grid": {"in_divs": 24, "out_divs": 16},
        "weights": {"package": "some-package", "file": "model.safetensors", "sha256": "ab" * 32},
        "architecture": {"model_type": "bert", "hidden_size": 384},
    },
    "task": {
        "name": "textual_digits",
        "version": 1,
        "_target_": "tombola.tasks.TextualDigits",
        "kind": "classify",
        "roles": ["encoder", "decoder"],
        "repo": None,
        "revision": None,
        "url": None,
        "data_dir": None,
        "files": [],
        "labels": 10,
        "metrics": ["accuracy"],
        "rows": {"train": 1437, "test": {"test": 360}},
        "tokens": {"train": 66},
    },
    "training": {
        "epochs": 6,
        "batch_size": 32,
        "lr": 0.003,
        "weight_decay": 0.0,
        "betas": [0.9, 0.999],
        "max_steps": None,
    },
    "launch": {"kind": "single", "nproc": 1},
    "log": {"tracker": "none"},
    "seed": 0,
    "force": False,
    "plan": False,
    "runs": {"dir": "runs"},
    "records": {"dir": "results/records"},
    "table": None,
}


@pytest.fixture
def config() -> dict[str, Any]:
    return deepcopy(CONFIG)


@pytest.fixture
def record(config: dict[str, Any]) -> Record:
    return Record(
        id="bola-minilm-textual_digits-s0-0123456789",
        started="2026-01-31T12:00:00+00:00",
        finished="2026-01-31T12:05:00+00:00",
        status="ok",
        config=config,
        scores=[Score("textual_digits", "test", "accuracy", 0.475, 360)],
        ticket={"unique_blocks": {"layer.0": 8}},
        cost={
            "trainable": 73_728,
            "head": 3_850,
            "stored_bytes": 310_000,
            "seconds": {"train": 81.5},
            "tokens_per_second": 7000.0,
            "peak_bytes": None,
        },
        provenance={
            "commit": "0" * 40,
            "dirty": False,
            "packages": {"python": "3.11.0"},
            "hardware": {"cpu": "a CPU", "cores": 2},
            "model": {"weights": "sha256:ab"},
            "data": {"data": "embedded:textual_digits@1"},
            "command": "python train.py method=bola",
        },
    )
