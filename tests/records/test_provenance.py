"""Provenance tells what ran, never where or by whom."""

import getpass
import json
import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from tombola_cli.records import command, gather, portable
from tombola_cli.records.provenance import hardware, is_dirty, package_versions


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A committed repository in the home folder of a user, the data folder beside it, and work going on inside."""
    home = tmp_path / "home" / "jdoe"
    folder = home / "code" / "repo"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "a.py").write_text("1\n")
    (home / "data" / "glue").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "jdoe")
    monkeypatch.setenv("TOMBOLA_DATA", str(home / "data"))
    monkeypatch.chdir(folder)
    _git(folder, "init", "-q")
    _git(folder, "add", ".")
    _git(folder, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "start")
    return folder


def test_dirty_means_the_code_and_not_runs_or_results(root):
    assert is_dirty(root) is False
    for name in ("results", "runs"):
        (root / name).mkdir()
        (root / name / "x.json").write_text("{}")
    assert is_dirty(root) is False
    (root / "src" / "b.py").write_text("2\n")
    assert is_dirty(root) is True


def test_outside_git_commit_and_dirty_are_null(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = gather(root=tmp_path, argv=["train.py"], model={}, data={})
    assert found["commit"] is None
    assert found["dirty"] is None


def test_gather_has_all_that_a_record_asks_for(root):
    found = gather(root=root, argv=["train.py"], model={"revision": "abc"}, data={"data": "x@1"}, gpus=["a GPU"])
    assert found["commit"] == _git(root, "rev-parse", "HEAD")
    assert found["hardware"]["gpus"] == ["a GPU"]
    assert found["hardware"]["cores"] >= 1
    assert found["packages"]["hydra-core"].startswith("1.3")
    assert found["model"] == {"revision": "abc"}
    assert found["command"] == "python train.py"


def test_a_record_says_whether_compiled_code_ran(root):
    assert gather(root=root, argv=["train.py"], model={}, data={})["compiled"] is False
    built = root / "src" / "tombola" / "adapters" / "ops" / "_cpu.cpython-311-x86_64-linux-gnu.so"
    built.parent.mkdir(parents=True)
    built.touch()
    assert gather(root=root, argv=["train.py"], model={}, data={})["compiled"] is True


def test_nothing_of_the_machine_is_in_a_record(root, config):
    home = Path(os.environ["HOME"])
    config["task"]["data_dir"] = str(home / "data" / "glue")
    config["model"]["path"] = "../../models/llama"
    config["runs"]["dir"] = str(root / "runs")
    argv = [f"{root}/train.py", f"task.data_dir={home}/data/glue", "model.path=../../models/llama", f"runs.dir={home}"]
    model = {"note": f"read from {home}/cache/x and /scratch/jdoe/y", "files": [home / "a"]}
    found = gather(root=root, argv=argv, model=model, data={"path": "/scratch/jdoe"})
    text = json.dumps([found, portable(config, root=root)])
    assert "jdoe" not in text
    assert str(home.parent.parent) not in text
    assert socket.gethostname() not in text
    assert "/scratch" not in text
    if getpass.getuser() != "root":
        assert getpass.getuser() not in text


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("task.data_dir=../../data/glue", "task.data_dir=$TOMBOLA_DATA/glue"),
        ("task.data_dir=~/data", "task.data_dir=$TOMBOLA_DATA"),
        ("model.path=~/models/llama", "model.path=$HOME/models/llama"),
        ("model.path=/scratch/jdoe", "model.path=..."),
        ("model.path=/scratch/models/llama", "model.path=.../llama"),
        ("model.path=./models/llama", "model.path=models/llama"),
        ("task=glue/cola", "task=glue/cola"),
        ("task.url=https://example.org/a/b", "task.url=https://example.org/a/b"),
        ("seed=0,1,2", "seed=0,1,2"),
        ("task.files=[/scratch/a.json,b/c.json]", "task.files=[.../a.json,b/c.json]"),
    ],
)
def test_paths_are_rewritten_and_names_are_not(root, word, expected):
    assert portable(word, root=root) == expected


def test_a_longer_name_is_not_the_repository(root):
    assert portable(f"{root}-old/x", root=root) == "$HOME/code/repo-old/x"
    assert portable(f"/mnt{root}/x", root=root) == ".../x"


def test_a_folder_with_a_space_is_recognised(tmp_path):
    root = tmp_path / "my code"
    assert portable(f"{root}/src/a.py", root=root) == "src/a.py"


def test_without_a_data_folder_only_the_name_is_kept(root, monkeypatch):
    monkeypatch.delenv("TOMBOLA_DATA")
    assert portable("/scratch/data/glue", root=root) == ".../glue"


def test_a_home_folder_of_slash_claims_nothing(root, monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert portable("/scratch/data/glue", root=root) == ".../glue"
    assert portable("a ratio of 1 / 2", root=root) == "a ratio of 1 / 2"


def test_the_command_can_be_pasted(root):
    words = ["train.py", "task.data_dir=../../data/glue", "method.config.target_modules=[query, key]"]
    typed = command(words, root=root)
    assert typed == "python train.py task.data_dir=$TOMBOLA_DATA/glue 'method.config.target_modules=[query, key]'"
    assert shlex.split(typed)[3] == words[2]


def test_packages_and_hardware_are_plain_values():
    assert {"python", "hydra-core"} <= set(package_versions())
    assert "node" not in hardware()
    assert json.dumps(hardware())


def _git(folder, *words):
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout.strip()
