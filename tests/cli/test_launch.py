import json
import os
import signal
import time
from pathlib import Path

import pytest

from tombola_cli.launch import child_command
from tombola_cli.parent import EX_TEMPFAIL
from tombola_cli.ranks import status


def wait_for(*files: Path) -> None:
    for _ in range(1200):
        if all(file.exists() and file.read_text() for file in files):
            return
        time.sleep(0.05)
    raise AssertionError(f"never came: {files}")


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"


def test_the_run_is_told_what_to_do_and_skipped_when_done(typed, tmp_path):
    status, output, errors = typed("seed=3")
    (folder,) = (tmp_path / "runs").iterdir()
    config = json.loads((folder / "config.json").read_text())
    assert (status, errors) == (0, "")
    assert output.splitlines() == [f"run {folder.name} in runs/{folder.name}", "rank - runs seed 3"]
    assert (config["id"], config["seed"], config["model"]["name"]) == (folder.name, 3, "tiny_roberta")
    assert config["command"] == ["train.py", "model=tiny_roberta", "runs.dir=runs", "records.dir=records", "seed=3"]
    assert set(config["sources"]) == {"weights", "data"}

    status, output, errors = typed("seed=3")
    assert (status, errors) == (0, "")
    assert f"{folder.name} is finished (recorded in records); force=true runs it again" in output
    assert "0.5000  n=360" in output

    status, output, errors = typed("seed=3", "force=true")
    assert "rank - runs seed 3" in output
    assert len(list((tmp_path / "records").iterdir())) == 2


def test_a_failed_run_is_status_1(typed):
    assert typed("seed=1")[0] == 1


@pytest.fixture
def waiting(start, tmp_path):
    """A run on two ranks that waits for a signal, and the process ids of its ranks."""
    process = start("seed=2", "launch=ddp", "launch.nproc=2")
    for _ in range(1200):
        folders = list((tmp_path / "runs").glob("*"))
        if folders:
            break
        time.sleep(0.05)
    files = [folders[0] / f"waiting-{rank}" for rank in (0, 1)]
    wait_for(*files)
    yield process, [int(file.read_text()) for file in files]
    process.kill()
    process.communicate()


def test_two_ranks_stop_at_a_signal_and_a_second_start_is_refused(waiting, typed):
    process, ranks = waiting
    status, _, errors = typed("seed=2", "launch=ddp", "launch.nproc=2")
    assert (status, "is in use: process" in errors) == (1, True)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (EX_TEMPFAIL, "")
    assert {"rank 0 runs seed 2", "rank 1 runs seed 2"} <= set(output.splitlines())
    assert [is_alive(rank) for rank in ranks] == [False, False]


def test_no_rank_outlives_a_launcher_that_was_killed(waiting):
    process, ranks = waiting
    process.kill()
    process.wait(timeout=60)  # not for the end of its output, which the ranks hold open
    for _ in range(200):
        if not any(map(is_alive, ranks)):
            break
        time.sleep(0.05)
    assert [is_alive(rank) for rank in ranks] == [False, False]


def test_under_another_launcher_each_rank_runs_in_place(typed):
    words = ("seed=3", "launch=ddp")
    first = typed(*words, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
    assert first[0] == 0
    assert "rank 0 runs seed 3" in first[1]
    second = typed(*words, "force=true", RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    assert second[:2] == (0, "rank 1 runs seed 3\n")
    assert "WORLD_SIZE=2: launch=single is one process" in typed("seed=3", RANK="0", WORLD_SIZE="2")[2]


def test_the_words_of_a_child():
    run = Path("runs/x")
    assert child_command(run, {"launch": {"kind": "single", "nproc": 1}})[1:] == ["-m", "tombola_cli.worker", "runs/x"]
    assert child_command(run, {"launch": {"kind": "zero2", "nproc": 4}})[1:] == [
        "-m",
        "tombola_cli.ranks",
        "4",
        "runs/x",
    ]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([75, 75], 75),
        ([75, -signal.SIGTERM], 75),
        ([1, 75], 1),
        ([-signal.SIGTERM], 1),
        ([1], 1),
        ([-signal.SIGKILL], 1),
    ],
)
def test_the_status_of_several_ranks(codes, expected):
    assert status(codes) == expected
