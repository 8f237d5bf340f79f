"""`scripts/export.py` on the command line: help, mistakes in one line each, and one export from end to end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tombola_cli.export import HELP, main

ADAPTER = ("adapter", "adapter_config.json")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, method, *file in (
        ("bola-minilm-s0-aa", "bola", *ADAPTER),
        ("bola-minilm-s0-ab", "bola"),
        ("bola-minilm-s0-a", "bola", *ADAPTER),
        ("base-minilm-s0-cc", "base", "adapter", "head.safetensors"),
        ("full_finetuning-minilm-s0-dd", "full_finetuning", "checkpoint", "config.json"),
    ):
        folder = tmp_path / "runs" / name
        folder.joinpath(*file[:-1]).mkdir(parents=True)
        if file:
            folder.joinpath(*file).write_text("{}")
        config = {"method": {"name": method}, "command": ["train.py", f"method={method}", "seed=0"]}
        (folder / "config.json").write_text(json.dumps(config))
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "run= is missing: python scripts/export.py run=ID format=native|shira|lora|merged"),
        ("run=bola", "format= is missing: python scripts/export.py run=ID"),
        ("run=bola format=mergd", "format=mergd: there is no such format; did you mean merged?"),
        ("rnu=bola format=merged", "rnu=bola: there is no such field; did you mean run?"),
        ("--fast run=bola format=merged", "--fast: there is no such field; there are format, out, run, runs.dir"),
        ("run=bola-minilm format=native", "run=bola-minilm fits 3 runs, say more of it: bola-minilm-s0-a, bola-"),
        ("run=bolla-minilm-s0-aa format=native", "there is no such run in runs; did you mean bola-minilm-s0-aa?"),
        ("run=bola runs.dir=elsewhere format=native", "run=bola: there is no such run in elsewhere; it has none"),
        ("run=bola-minilm-s0-ab format=native", "has not finished training; go on with: python train.py method=bola"),
        ("run=base format=merged", "base has no adapter to export: runs/base-minilm-s0-cc/adapter holds the base"),
        ("run=full format=merged", "runs/full_finetuning-minilm-s0-dd/checkpoint is a plain transformers checkpoint"),
        ("run=bola-minilm-s0-aa format=native out=runs", "out=runs exists: name another folder, or remove it first"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(runs, capsys, words, says):
    assert main(words.split()) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert not printed.out


@pytest.mark.parametrize(("name", "out"), [("bola-minilm-s0-aa", "mine"), ("bola-minilm-s0-a", None)])
def test_a_run_is_found_by_its_beginning_and_its_whole_name_wins(runs, capsys, name, out):
    words = [f"run={name}", "format=native", *([f"out={out}"] if out else [])]
    folder = Path(out) if out else Path("runs") / name / "exported" / "native"
    for _ in range(1 if out else 2):  # the run's own folder is written anew
        assert main(words) == 0
        assert capsys.readouterr().out == f"written: {folder}\n"
    assert [path.name for path in folder.iterdir()] == ["adapter_config.json"]


def test_help_teaches_without_torch(repository):
    program = (
        "import sys, runpy\nsys.argv = ['export.py', '--help']\n"
        "try: runpy.run_path('scripts/export.py', run_name='__main__')\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == HELP
    assert all(word in HELP for word in ("run=ID", "native", "shira", "lora", "merged", "out=DIR", "Example"))
    assert max(map(len, HELP.splitlines())) <= 120
