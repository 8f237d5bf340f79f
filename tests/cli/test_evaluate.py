"""`eval.py` on the command line: help, mistakes in one line each, and the config that an evaluation is made of."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tombola_cli.evaluate import HELP, evaluation_config, main, read_request
from tombola_cli.records import Record, Score, read_records, write_record
from tombola_cli.run_folder import FINISHED


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs as they look when they have finished: an encoder's, a decoder's, and one that was cut off."""
    from tombola_cli.config.compose import compose

    monkeypatch.chdir(tmp_path)
    for name, finished, words in (
        ("bola-minilm-textual_digits-s0-aa", True, ["method=bola", "model=minilm", "training=smoke"]),
        ("lora-tiny_llama-textual_digits-s0-ab", True, ["method=lora", "model=tiny_llama", "training.max_length=99"]),
        ("lora-tiny_llama-textual_digits-s1-ac", False, ["method=lora", "model=tiny_llama", "seed=1"]),
    ):
        folder = tmp_path / "runs" / name
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "adapter_model.safetensors").write_bytes(name.encode())
        config = {**compose(words), "id": name, "sources": {"weights": "w", "data": "d"}}
        (folder / "config.json").write_text(json.dumps({**config, "command": ["train.py", *words]}))
        if finished:
            (folder / FINISHED).touch()
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "run= is missing: python eval.py run=ID task=TASK"),
        ("run=bola", "task= is missing: python eval.py run=ID task=TASK"),
        ("run=bola task.data_dir=x", "task= is missing"),
        ("rum=bola task=math", "rum=bola: there is no such field; did you mean run? See --help"),
        (
            "run=bola task=math training.lr=1",
            "training.lr=1: there is no such field; there are evaluations.dir, force, ",
        ),
        ("run=bola task=math force=yes", "force=yes: expected true or false"),
        ("run=l task=math", "run=l fits 2 runs, say more of it: lora-tiny_llama-textual_digits-s0-ab, lora-tiny"),
        (
            "run=pissa task=math",
            "run=pissa: there is no such run in runs; there are bola-minilm-textual_digits-s0-aa, ",
        ),
        ("run=bola task=math runs.dir=no", "run=bola: there is no such run in no; it has none"),
        (
            "run=lora-tiny_llama-textual_digits-s1 task=math",
            "lora-tiny_llama-textual_digits-s1-ac has not finished training; go on with: python train.py method=lora "
            "model=tiny_llama seed=1",
        ),
        ("run=bola task=mathe", "task=mathe: there is no such task; did you mean task=math?"),
        (
            "run=bola task=math",
            "task=math with model=minilm: the task needs a decoder, and this model is an encoder",
        ),
        (
            "run=bola task=probes/forgetting",
            "task=probes/forgetting with model=minilm: the task needs a decoder, and this model is an encoder",
        ),
        (
            "run=bola task=textual_digits task.labels=9",
            "task=textual_digits: the run's head was trained on textual_digits and has 10 outputs to classify; "
            "the task needs 9 outputs to classify",
        ),
        ("run=bola task=textual_digits task.colour=1", "task.colour=1: there is no field task.colour; task has "),
        (
            "run=bola task=textual_digits training.max_eval_rows=0",
            "training.max_eval_rows=0: expected a whole number of at least 1, or null",
        ),
        (
            "run=lora-tiny_llama-textual_digits-s0 task=math task.data_dir=nowhere",
            "task.data_dir=nowhere: there is no such folder; give one that has dataset/MultiArith/test.json, ",
        ),
        (
            "run=lora-tiny_llama-textual_digits-s0 task=probes/forgetting task.data_dir=runs task.probes=[piqa]",
            "task.data_dir=runs: probes/forgetting reads piqa.validation.jsonl.gz, not there; give its right folder",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(runs, capsys, words, says):
    assert main(words.split()) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert not printed.out
    assert not list(runs.glob("*/evaluations"))


def test_several_mistakes_come_together(runs, capsys):
    assert main(["run=bola", "task=textual_digits", "task.colour=1", "training.max_length=x"]) == 1
    assert capsys.readouterr().err.count("error: ") == 2


def configured(runs: Path, *words: str) -> dict[str, Any]:
    request = read_request(words)
    return evaluation_config(request, next(runs.glob(f"{request.run}*")))


def test_all_rows_are_asked_unless_there_is_a_cap(runs):
    config = configured(runs, "run=bola", "task=textual_digits")
    assert config["training"]["max_eval_rows"] is None  # the run's own was 4
    assert (
        configured(runs, "run=bola", "task=textual_digits", "training.max_eval_rows=7")["training"]["max_eval_rows"]
        == 7
    )
    kept = configured(runs, "run=lora-tiny_llama-textual_digits-s0", "task=textual_digits")["training"]
    assert kept["max_length"] == 99


def test_the_runs_own_task_keeps_the_fields_that_the_run_had(runs):
    folder = runs / "lora-tiny_llama-textual_digits-s0-ab"
    config = json.loads((folder / "config.json").read_text())
    config["task"] |= {"_target_": "tombola.tasks.TextualDigits", "labels": 12, "metrics": ["mine"]}
    (folder / "config.json").write_text(json.dumps(config))
    words = ("run=lora-tiny_llama-textual_digits-s0", "task=textual_digits")
    assert configured(runs, *words)["task"]["metrics"] == ["mine"]
    task = configured(runs, *words, "task.labels=11")["task"]
    assert (task["labels"], task["metrics"]) == (11, ["mine"])


def test_a_class_that_a_runs_config_smuggles_in_is_not_made(runs, capsys):
    path = runs / "bola-minilm-textual_digits-s0-aa" / "config.json"
    config = json.loads(path.read_text())
    config["method"]["_target_"] = "os.system"
    path.write_text(json.dumps(config))
    assert main(["run=bola", "task=textual_digits"]) == 1
    assert "method._target_=os.system: this class is not on the allow-list" in capsys.readouterr().err


def test_an_evaluation_that_is_recorded_is_told_and_another_cap_is_another_one(runs, capsys, monkeypatch):
    asked = []

    def evaluate(folder: Path) -> int:
        config = json.loads((folder / "config.json").read_text())
        asked.append(config)
        names = ("commit", "dirty", "packages", "hardware", "model", "data", "command")
        cost = {
            "trainable": 0,
            "head": 0,
            "stored_bytes": 1,
            "seconds": {},
            "tokens_per_second": None,
            "peak_bytes": None,
        }
        now, score = "2026-01-31T12:00:00+00:00", Score("textual_digits", "test", "accuracy", 0.5, 360)
        record = Record(config["id"], now, now, "ok", config, [score], cost=cost, provenance=dict.fromkeys(names))
        write_record(config["records"]["dir"], record)
        return 0

    heavy = ModuleType("tombola.evaluate")
    heavy.main = evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tombola", ModuleType("tombola"))
    monkeypatch.setitem(sys.modules, "tombola.evaluate", heavy)
    words = ["run=bola", "task=textual_digits", "evaluations.dir=evaluated"]
    assert main(words) == 0
    assert main(words) == 0
    assert "is finished (recorded in evaluated)" in capsys.readouterr().out
    assert len(asked) == 1
    assert main([*words, "training.max_eval_rows=3"]) == 0
    assert main([*words, "force=true"]) == 0
    assert [one["force"] for one in asked] == [False, False, True]
    records = read_records("evaluated")
    assert len(records) == 3
    assert len({record.id for record in records}) == 2
    assert all(record.id.startswith("bola-minilm-textual_digits-s0-aa-on-textual_digits-") for record in records)
    (runs / "bola-minilm-textual_digits-s0-aa/adapter/adapter_model.safetensors").write_bytes(b"trained again")
    assert main(words) == 0
    assert len(asked) == 4


def test_help_teaches_without_torch(repository):
    program = (
        "import sys, runpy\nsys.argv = ['eval.py', '--help']\n"
        "try: runpy.run_path('eval.py', run_name='__main__')\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == HELP
    assert all(word in HELP for word in ("run=ID", "task=TASK", "probes/forgetting", "force=true", "worked examples"))
    assert max(map(len, HELP.splitlines())) <= 120


@pytest.mark.parametrize("words", [["run=nothing", "task=math"], ["task=math"], ["run=x", "task=math", "lr=1"]])
def test_a_mistake_never_imports_torch(repository, tmp_path, words):
    program = (
        f"import sys, runpy\nsys.argv = ['eval.py', 'runs.dir={tmp_path}', *{words}]\n"
        "try: runpy.run_path('eval.py', run_name='__main__')\nexcept SystemExit as end: assert end.code == 1\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=repository, check=True, capture_output=True)
