import json
import os
import subprocess
import sys

import pytest

from tombola_cli.run_folder import Busy, locked, write_config


def test_the_second_of_two_is_told_who_is_first(tmp_path):
    with (
        locked(tmp_path / "run"),
        pytest.raises(Busy, match=f"run is in use: process {os.getpid()} is running it; wait for it, or stop it first"),
        locked(tmp_path / "run"),
    ):
        pass


def test_it_can_be_locked_again_when_the_first_is_done(tmp_path):
    with locked(tmp_path):
        pass
    with locked(tmp_path) as lock:
        assert os.fstat(lock).st_size == len(f"{os.getpid()}\n")


def test_a_child_that_has_the_lock_keeps_it(tmp_path):
    with locked(tmp_path) as lock:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,), start_new_session=True
        )
    try:
        with pytest.raises(Busy, match="in use"), locked(tmp_path):
            pass
    finally:
        child.communicate(b"\n", timeout=30)
    with locked(tmp_path) as lock:
        assert lock > 0


def test_the_config_is_whole_and_alone(tmp_path):
    for seed in (1, 2):
        write_config(tmp_path, run_id="x", config={"seed": seed}, sources={"data": "d"}, command=["train.py", "seed=2"])
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "seed": 2,
        "id": "x",
        "sources": {"data": "d"},
        "command": ["train.py", "seed=2"],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
