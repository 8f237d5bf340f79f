"""Killed at any moment and started again, a run ends with the adapter of an uninterrupted one, to the bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tombola.training.archive import sha256

# Everything at once: dropout (torch's generator), a hook that draws from the others, best-checkpoint selection, two
# phases of 12 steps of about two micro-batches, a checkpoint every 3 steps.
JOB: dict[str, Any] = {
    "adapter": "bola", "dropout": 0.1, "jitter": True, "validate": True, "phases": ["search", "train"],
    "settings": {"select": "best", "validate_every": 4},
}  # fmt: skip

# (moment, the how-manieth time; a run comes to `forward` about 48 times and saves 3 tensor files in each checkpoint)
KILLS = [
    ("forward", 2),
    ("backward", 9),  # in accumulation: between two micro-batches of a step
    ("gradient norm", 5),
    ("optimizer step", 8),
    ("after the optimizer step", 3),
    ("log line", 15),
    ("half a log line", 7),
    ("saving, a file written", 4),
    ("saving, no manifest yet", 8),
    ("saving, before the rename", 2),
    ("saving, after the rename", 2),
    ("saving, old ones not removed", 3),
    ("half an old checkpoint removed", 1),
    ("a torn checkpoint", 2),
    ("validation", 2),
    ("finishing", 1),
    ("finished", 1),
    ("forward", 30),  # in the second phase
]


def drive(repository: Path, folder: Path, specs: list[dict[str, Any]], timeout: int = 500) -> list[list[int]]:
    """The exit statuses of the jobs' ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "specs.json"
    path.write_text(json.dumps(specs))
    environment = {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.drive", str(path)]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def adapter(run_dir: Path) -> str:
    return sha256(run_dir / "adapter" / "adapter_model.safetensors")


def log_lines(run_dir: Path) -> list[dict[str, Any]]:
    """The log without times: what must be the same, line for line."""
    lines = [json.loads(text) for text in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def kill_and_resume(repository: Path, folder: Path, job: dict[str, Any], kills: list[tuple[str, int]]) -> None:
    """Runs the job once undisturbed and once for each kill, then asks for equal adapters and logs."""
    specs = [{**job, "run_dir": str(folder / "undisturbed")}]
    for number, kill in enumerate(kills):
        run_dir = str(folder / str(number))
        # Only rank 0 writes; forward and backward are killed on the other rank where there is one.
        rank = job.get("nproc", 1) - 1 if kill[0] in ("forward", "backward") else 0
        specs += [{**job, "run_dir": run_dir, "kill": kill, "kill_rank": rank}, {**job, "run_dir": run_dir}]
    statuses = drive(repository, folder, specs)
    ranks = job.get("nproc", 1)
    assert statuses[0] == [0] * ranks
    expected = adapter(folder / "undisturbed"), log_lines(folder / "undisturbed")
    for number, kill in enumerate(kills):
        killed, resumed = statuses[1 + 2 * number], statuses[2 + 2 * number]
        # Another rank is killed with it, or fails by itself a moment before, when its peer no longer answers.
        assert -9 in killed, f"{kill} did not kill"
        assert 0 not in killed, f"{kill}: a rank ended well without the other"
        assert resumed == [0] * ranks, f"after {kill}"
        assert (adapter(folder / str(number)), log_lines(folder / str(number))) == expected, f"after {kill}"


def test_three_kills_leave_no_trace(repository: Path, tmp_path: Path) -> None:
    kills = [("backward", 9), ("saving, before the rename", 2), ("validation", 2)]
    kill_and_resume(repository, tmp_path, JOB, kills)
    steps = [(line["phase"], line["step"]) for line in log_lines(tmp_path / "0") if "loss" in line]
    assert steps == [(phase, step) for phase in ("search", "train") for step in range(1, 13)]


@pytest.mark.recipe
def test_every_moment_on_one_process(repository: Path, tmp_path: Path) -> None:
    kill_and_resume(repository, tmp_path, JOB, KILLS)


@pytest.mark.recipe
def test_every_moment_on_two_ranks(repository: Path, tmp_path: Path) -> None:
    # With half the budget each rank still has about two micro-batches a step.
    job = {**JOB, "kind": "ddp", "nproc": 2, "settings": {**JOB["settings"], "token_budget": 24}}
    kill_and_resume(repository, tmp_path, job, KILLS)


@pytest.mark.recipe
@pytest.mark.parametrize("ranks", [{}, {"kind": "ddp", "nproc": 2}])
def test_every_window_of_a_training_goes_on(repository: Path, tmp_path: Path, ranks: dict[str, Any]) -> None:
    job = {**JOB, **ranks, "cuts": [1, 5], "settings": {"validate_every": 4}}
    kills = [
        ("forward", 1), ("after the optimizer step", 1), ("after the optimizer step", 2), ("optimizer step", 7),
        ("finishing", 1), ("finished", 1), ("finished", 2), ("saving, a file written", 4), ("log line", 6),
        ("log line", 2), ("half a log line", 9),
    ]  # fmt: skip
    kill_and_resume(repository, tmp_path, job, kills)


@pytest.mark.recipe
def test_kills_from_outside_whenever(repository: Path, tmp_path: Path) -> None:
    undisturbed, run_dir = str(tmp_path / "undisturbed"), str(tmp_path / "killed")
    delays = [0.3 + 0.15 * number for number in range(12)]
    specs = [{**JOB, "run_dir": run_dir, "kill_after": delay} for delay in delays]
    statuses = drive(repository, tmp_path, [*specs, {**JOB, "run_dir": run_dir}, {**JOB, "run_dir": undisturbed}])
    assert [-9] in statuses
    assert statuses[-2:] == [[0], [0]]
    assert adapter(Path(run_dir)) == adapter(Path(undisturbed))


@pytest.mark.recipe
def test_a_signal_to_one_of_two_ranks_stops_both_at_the_same_step(repository: Path, tmp_path: Path) -> None:
    job = {**JOB, "kind": "ddp", "nproc": 2}
    stopped, undisturbed = str(tmp_path / "stopped"), str(tmp_path / "undisturbed")
    first = {**job, "run_dir": stopped, "terminate": ("optimizer step", 5), "kill_rank": 1}
    assert drive(repository, tmp_path, [first]) == [[75, 75]]
    assert (tmp_path / "stopped" / "checkpoints" / "search-5").is_dir()
    again = [{**job, "run_dir": stopped}, {**job, "run_dir": undisturbed}]
    assert drive(repository, tmp_path, again) == [[0, 0], [0, 0]]
    assert adapter(Path(stopped)) == adapter(Path(undisturbed))
