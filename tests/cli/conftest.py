"""A stand-in for `tombola.run` that takes no time, and a command line that uses it in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Writes an ok record, fails for seed 1, and waits for SIGTERM for seed 2: what a launcher can tell of a run.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path

def main(run_dir):
    config = json.loads((run_dir / "config.json").read_text())
    # one write, so that the lines of two ranks cannot mix where Python's output is not buffered
    os.write(1, f"rank {os.environ.get('RANK', '-')} runs seed {config['seed']}\\n".encode())
    if config["seed"] == 1:
        print("error: this one fails", flush=True)
        return 1
    if config["seed"] == 2:
        stop = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
        (run_dir / f"waiting-{os.environ.get('RANK', '0')}").write_text(str(os.getpid()))
        for _ in range(600):
            if stop:
                return 75
            time.sleep(0.05)
    if os.environ.get("RANK", "0") == "0":
        from tombola_cli.records import Record, Score, write_record
        names = ("commit", "dirty", "packages", "hardware", "model", "data", "command")
        cost = {"trainable": 1, "head": 1, "stored_bytes": 1, "seconds": {}}
        cost |= {"tokens_per_second": None, "peak_bytes": None}
        now = "2026-01-31T12:00:00+00:00"
        write_record(config["records"]["dir"], Record(
            id=config["id"], started=now, finished=now, status="ok", config=config, ticket={}, cost=cost,
            scores=[Score("textual_digits", "test", "accuracy", 0.5, 360)], provenance=dict.fromkeys(names)))
    return 0
"""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = tmp_path_factory.mktemp("stand_in") / "tombola"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "run.py").write_text(STAND_IN)
    return package.parent


@pytest.fixture
def start(stand_in: Path, tmp_path: Path, repository: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the command line in `tmp_path`, with the stand-in for the run."""
    program = "import sys; from tombola_cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(stand_in), str(repository / "src")])}

    def start(*words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, "model=tiny_roberta", "runs.dir=runs", "records.dir=records", *words],
            cwd=tmp_path,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def typed(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line to its end: exit status, output, errors."""

    def typed(*words: str, **variables: str) -> tuple[int, str, str]:
        process = start(*words, **variables)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    return typed
