"""Finished runs asked again, in this process, on tiny models: their own task, another one, the probes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.forgetting.probe_files import probe_folder

from tombola.evaluation import questions as asking
from tombola.run import main as run
from tombola_cli.config.compose import compose
from tombola_cli.evaluate import main
from tombola_cli.records import read_record, read_records, run_id, sources
from tombola_cli.run_folder import write_config


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs` and `records` of an encoder's and a decoder's run that were scored on 4 rows."""
    place = tmp_path_factory.mktemp("evaluated")
    for words in (["model=tiny_roberta", "method=bola"], ["model=tiny_llama", "method=lora"]):
        config = compose(["training=smoke", f"runs.dir={place / 'runs'}", f"records.dir={place / 'records'}", *words])
        found = sources(config)
        name = run_id(config, found)
        folder = place / "runs" / name
        write_config(folder, run_id=name, config=config, sources=found, command=["train.py", *words])
        assert run(folder) == 0
    return place


@pytest.fixture
def evaluate(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def typed(*words: str) -> int:
        return main([f"runs.dir={folders / 'runs'}", f"evaluations.dir={tmp_path / 'evaluations'}", *words])

    return typed


@pytest.mark.parametrize("name", ["bola", "lora"])
def test_its_own_task_again_gives_its_own_answers(folders, evaluate, tmp_path, name):
    before = {path: path.read_bytes() for path in sorted((folders / "records").iterdir())}
    assert evaluate(f"run={name}", "task=textual_digits", "training.max_eval_rows=4") == 0
    (evaluation,) = read_records(tmp_path / "evaluations")
    ran = read_record(next(path for path in before if path.name.startswith(name)))
    assert [(one.metric, one.value, one.n) for one in evaluation.scores] == [
        (one.metric, one.value, one.n) for one in ran.scores
    ]
    answers = [
        path.read_text().splitlines()[1:] for path in (folders / "runs").glob(f"{name}*/**/textual_digits-test.jsonl")
    ]
    assert answers[0] == answers[1]
    assert evaluation.config["evaluated"]["run"] == ran.id
    assert evaluation.cost["trainable"] == 0
    assert evaluation.cost["stored_bytes"] == ran.cost["stored_bytes"]
    assert str(tmp_path) not in json.dumps(evaluation.provenance)
    assert {path: path.read_bytes() for path in sorted((folders / "records").iterdir())} == before


def test_every_row_of_a_run_that_was_scored_on_a_few(evaluate, tmp_path):
    assert evaluate("run=bola", "task=textual_digits") == 0
    (evaluation,) = read_records(tmp_path / "evaluations")
    assert [one.n for one in evaluation.scores] == [360]


class Killed(BaseException):
    pass


def test_killed_it_goes_on_after_its_last_answers(evaluate, tmp_path, monkeypatch):
    words = ("run=bola", "task=textual_digits", "training.eval_token_budget=2000")
    asked = []
    original = asking.head_outputs

    def counted(model: Any, rows: Any, tokenizer: Any) -> Any:
        asked.append(len(rows))
        if sum(asked) > 100:
            raise Killed
        return original(model, rows, tokenizer)

    with monkeypatch.context() as patched:
        patched.setattr(asking, "head_outputs", counted)
        with pytest.raises(Killed):
            evaluate(*words)
    answered = sum(asked[:-1])
    asked[:] = [-1000]
    monkeypatch.setattr(asking, "head_outputs", counted)
    assert evaluate(*words) == 0
    assert sum(asked[1:]) == 360 - answered
    assert len(read_records(tmp_path / "evaluations")) == 1


@pytest.mark.recipe
def test_a_decoder_on_the_probes_without_a_change_to_its_own_record(folders, evaluate, tmp_path):
    data = probe_folder(tmp_path / "data")
    words = (
        "run=lora",
        "task=probes/forgetting",
        f"task.data_dir={data}",
        "task.checksums=null",
        "task.limit.hellaswag=2",
    )
    assert evaluate(*words, "task.probes=[piqa,hellaswag]") == 0
    (evaluation,) = read_records(tmp_path / "evaluations")
    assert [(one.split, one.metric, one.n) for one in evaluation.scores] == [
        (probe, f"{metric}{end}", n)
        for probe, n in (("piqa", 5), ("hellaswag", 2))
        for metric in ("acc", "acc_norm")
        for end in ("", "_before", "_difference")
    ]
    told = evaluation.provenance["forgetting"]
    assert (told["lm_eval"], told["probes"]["hellaswag"]["version"]) == ("0.4.13", 1.0)
    assert len(read_records(folders / "records")) == 2
