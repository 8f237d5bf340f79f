"""lm-eval's probes around a run, in processes of their own: real ones on a tiny model, killed, resumed and shared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.forgetting.probe_files import probe_folder

from tombola import before_after
from tombola.before_after import BeforeAfter, ProbesFailed
from tombola.run import FAILED, REQUEUE, main
from tombola.tasks import DataError
from tombola.training import Interrupted
from tombola_cli.config.compose import compose
from tombola_cli.records import read_records, run_id, sources
from tombola_cli.run_folder import write_config


def result(acc: float, strict: float) -> dict[str, Any]:
    told = {"version": 1.0, "shots": 0, "n": 4, "cut": 0, "rows": "ab"}
    probes = {
        "piqa": {**told, "metrics": {"acc": acc}},
        "gsm8k": {**told, "n": 2, "metrics": {"exact_match_strict": strict}},
    }
    return {"lm_eval": "0.4.13", "chat_template": False, "batch_size": 8, "probes": probes, "seconds": 1.5}


def test_scores_are_after_before_and_the_difference():
    found = before_after.scores("probes/forgetting", result(0.75, 0.5), result(0.5, 1.0))
    assert [(one.task, one.split, one.metric, one.value, one.n) for one in found] == [
        ("probes/forgetting", "piqa", "acc", 0.5, 4),
        ("probes/forgetting", "piqa", "acc_before", 0.75, 4),
        ("probes/forgetting", "piqa", "acc_difference", -0.25, 4),
        ("probes/forgetting", "gsm8k", "exact_match_strict", 1.0, 2),
        ("probes/forgetting", "gsm8k", "exact_match_strict_before", 0.5, 2),
        ("probes/forgetting", "gsm8k", "exact_match_strict_difference", 0.5, 2),
    ]
    assert before_after.lines(result(0.75, 0.5), result(0.5, 1.0))[0] == (
        "piqa: acc 50.00 % after, 75.00 % before, -25.00 points (n=4)"
    )


def test_scores_of_other_rows_are_not_compared():
    other = result(0.5, 1.0)
    other["probes"]["piqa"]["rows"] = "cd"
    with pytest.raises(ProbesFailed, match="piqa: other rows after than before; remove the base's answers"):
        before_after.scores("probes/forgetting", result(0.75, 0.5), other)


def test_the_protocol_is_told():
    told = before_after.protocol(result(0, 0), result(0, 0))
    assert told["lm_eval"] == "0.4.13"
    assert told["probes"]["gsm8k"] == {"version": 1.0, "shots": 0, "n": 2, "cut": 0, "rows": "ab"}
    assert told["seconds"] == {"before": 1.5, "after": 1.5}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return probe_folder(tmp_path / "data")


@pytest.fixture
def start(tmp_path: Path, data_dir: Path) -> Any:
    def prepare(*words: str) -> Path:
        fixed = ["training=smoke", f"runs.dir={tmp_path / 'runs'}", f"records.dir={tmp_path / 'records'}"]
        fixed += ["model=tiny_llama", "method=lora", "training.lr=0.1"]
        probes = ["forgetting=probes", f"forgetting.data_dir={data_dir}", "forgetting.checksums=null"]
        config = compose([*fixed, *probes, "forgetting.shots.gsm8k=1", "training.max_eval_rows=3", *words])
        found = sources(config)
        name = run_id(config, found)
        folder = tmp_path / "runs" / name
        write_config(folder, run_id=name, config=config, sources=found, command=["train.py", *words])
        return folder

    return prepare


def of(folder: Path) -> BeforeAfter:
    config = json.loads((folder / "config.json").read_text())
    return BeforeAfter.of(config, config["forgetting"], folder)


def test_the_cap_on_test_rows_holds_for_the_probes_as_well(start):
    assert of(start()).probes["limit"] == {"piqa": 3, "hellaswag": 3, "gsm8k": 3}
    words = ["forgetting.limit.piqa=2", "forgetting.limit.gsm8k=9", "forgetting.probes=[piqa,gsm8k]"]
    assert of(start(*words)).probes["limit"] == {"piqa": 2, "gsm8k": 3}
    assert of(start(*words, "training.max_eval_rows=null")).probes["limit"] == {"piqa": 2, "gsm8k": 9}


def test_data_that_is_torn_is_found_before_the_training(start, data_dir, capsys):
    (data_dir / "piqa.validation.jsonl.gz").write_bytes(b"\x1f\x8b torn")
    folder = start()
    with pytest.raises(DataError, match=r"piqa\.validation\.jsonl\.gz is torn"):
        of(folder)
    assert main(folder) == FAILED
    assert "piqa.validation.jsonl.gz is torn" in capsys.readouterr().out
    assert not (folder / "phases").exists()


def test_other_ranks_wait_for_the_firsts_result(start, monkeypatch):
    folder = start()
    probes = of(folder)
    other = BeforeAfter(probes.config, probes.probes, folder, first=False)
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            place = folder.parent / "before" / other._base_key()
            place.mkdir(parents=True)
            (place / "result.json").write_text(json.dumps(result(0.5, 0.5)))

    monkeypatch.setattr(before_after.time, "sleep", sleep)
    monkeypatch.setattr(before_after, "_run", lambda place: pytest.fail("another rank started lm-eval"))
    assert other.before() == result(0.5, 0.5)
    assert len(waited) == 3


def test_what_changes_the_answers_changes_the_place(start, data_dir, monkeypatch):
    """Another base, data, question or library is asked anew; another method or seed of the same base is not."""
    keys = {of(start(*words))._base_key() for words in ([], ["method.config.r=2"], ["training.batch_size=4"])}
    assert len(keys) == 1
    for words in (
        ["model.dtype=bfloat16"],
        ["forgetting.chat_template=true"],
        ["forgetting.shots.gsm8k=0"],
        ["forgetting.limit.piqa=1"],
        ["method=qlora"],
    ):
        keys.add(of(start(*words))._base_key())
    monkeypatch.setattr(before_after, "package_versions", lambda: {"torch": "0"})
    keys.add(of(start())._base_key())
    assert len(keys) == 7


@pytest.mark.parametrize(("status", "says"), [(1, "^$"), (9, "ended with status 9; started again, it goes on after")])
def test_a_process_that_fails(start, monkeypatch, status, says):
    program = f"import sys; sys.exit({status})"
    popen = subprocess.Popen
    monkeypatch.setattr(
        before_after.subprocess, "Popen", lambda words, **options: popen([words[0], "-c", program], **options)
    )
    with pytest.raises(ProbesFailed, match=says):
        of(start()).before()


def test_a_signal_reaches_the_process_and_the_run_can_be_started_again(start, monkeypatch):
    program = f"import os, time; os.kill({os.getpid()}, {int(signal.SIGTERM)}); time.sleep(60)"
    popen = subprocess.Popen
    monkeypatch.setattr(
        before_after.subprocess, "Popen", lambda words, **options: popen([words[0], "-c", program], **options)
    )
    began = time.monotonic()
    with pytest.raises(Interrupted, match="goes on after its last answers"):
        of(start()).before()
    assert time.monotonic() - began < 30
    assert main(start()) == REQUEUE


@pytest.mark.recipe
def test_a_run_records_what_it_unlearned_and_asks_the_base_once(start, tmp_path, monkeypatch):
    folder = start()
    assert main(folder) == 0
    (record,) = read_records(tmp_path / "records")
    scores = {(one.split, one.metric): one.value for one in record.scores if one.task == "probes/forgetting"}
    (before,), (after,) = (
        list(place.glob("*/result.json")) for place in (tmp_path / "runs/before", folder / "forgetting")
    )
    for probe, metric in (("piqa", "acc"), ("hellaswag", "acc_norm"), ("gsm8k", "exact_match_flexible")):
        told = [json.loads(path.read_text())["probes"][probe]["metrics"][metric] for path in (before, after)]
        assert [scores[probe, f"{metric}_before"], scores[probe, metric]] == told
        assert scores[probe, f"{metric}_difference"] == told[1] - told[0]
    likelihoods = [(path.parent / "rows/piqa.jsonl").read_text() for path in (before, after)]
    assert likelihoods[0] != likelihoods[1], "the adapter was not asked"
    assert record.provenance["forgetting"]["probes"]["piqa"]["n"] == 3
    assert record.provenance["model"]["probes"].startswith("sha256:")
    asked = []
    real = before_after._run
    monkeypatch.setattr(before_after, "_run", lambda place: (asked.append(place.parent.name), real(place)))
    assert main(start("method.config.r=2", "seed=0")) == 0
    assert asked == ["forgetting"]


@pytest.mark.recipe
def test_without_an_adapter_nothing_is_unlearned(start, tmp_path):
    folder = start("method=base", "forgetting.probes=[piqa]")
    assert main(folder) == 0
    assert not (folder / "forgetting").exists(), "the same model was asked twice"
    (record,) = read_records(tmp_path / "records")
    scores = {one.metric: one.value for one in record.scores if one.task == "probes/forgetting"}
    assert scores["acc"] == scores["acc_before"]
    assert scores["acc_difference"] == scores["acc_norm_difference"] == 0


KILLED = """
import sys
from pathlib import Path
from tombola.forgetting.language_model import KeptAnswers
from tombola import probe

score, left = KeptAnswers.score, [2]
def counted(model, requests):
    if not left[0]:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return score(model, requests)
KeptAnswers.score = counted
sys.exit(probe.main(Path(sys.argv[1])))
"""


@pytest.mark.recipe
def test_killed_hard_the_process_goes_on_and_answers_the_same(start, tmp_path, monkeypatch):
    popen, words = subprocess.Popen, ["forgetting.probes=[hellaswag]", "forgetting.batch_size=2"]
    whole = of(start(*words)).before()
    (place,) = (tmp_path / "runs/before").iterdir()
    rows = (place / "rows/hellaswag.jsonl").read_bytes()
    place.rename(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(
            before_after.subprocess,
            "Popen",
            lambda words, **options: popen([words[0], "-c", KILLED, words[-1]], **options),
        )
        with pytest.raises(ProbesFailed, match="status -9"):
            of(start(*words)).before()
    answered = (place / "answers/hellaswag.jsonl").read_text().splitlines()
    assert len(answered) == 1 + 4, "two batches of two, behind whose they are"
    resumed = of(start(*words)).before()
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert (place / "rows/hellaswag.jsonl").read_bytes() == rows
    assert (place / "answers/hellaswag.jsonl").read_text().splitlines()[: len(answered)] == answered


@pytest.mark.recipe
def test_killed_with_its_run(start, repository):
    """SIGKILL to the run leaves no process of lm-eval behind."""
    folder = start()
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    run = subprocess.Popen([sys.executable, "-m", "tombola_cli.worker", str(folder)], env=environment)
    import psutil

    for _ in range(600):
        children = psutil.Process(run.pid).children()
        if children:
            break
        time.sleep(0.1)
    time.sleep(2)  # for it to have asked to die with its parent
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children
    assert not alive


@pytest.mark.recipe
def test_two_ranks_ask_once_and_write_one_record(tmp_path, data_dir, repository):
    words = ["model=tiny_llama", "method=lora", "training=smoke", "launch=ddp", "launch.nproc=2"]
    words += [f"runs.dir={tmp_path / 'runs'}", f"records.dir={tmp_path / 'records'}", "forgetting=probes"]
    words += [f"forgetting.data_dir={data_dir}", "forgetting.checksums=null", "forgetting.probes=[piqa]"]
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=repository, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = read_records(tmp_path / "records")
    assert record.cost["world_size"] == 2
    assert sum(one.task == "probes/forgetting" for one in record.scores) == 6
    assert len(list((tmp_path / "runs").rglob("job.json"))) == 2
