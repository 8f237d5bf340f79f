"""What must not cost seconds: help and every error come before torch, seen in the modules of a process at its end."""

import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tombola",
    "numpy",
    "deepspeed",
    "pandas",
    "matplotlib",
    "wandb",
}
PROGRAM = """
import atexit, sys
atexit.register(lambda: print("MODULES", *sorted({name.split(".")[0] for name in sys.modules})))
sys.argv = ["train.py", *sys.argv[1:]]
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["--cfg", "job"], 0),
        (["method=bol", "method.aplha=3", "training.lr=x"], 1),
        (["task=math", "task.data_dir=/nowhere", "method.config.in_divs=7"], 1),
        (["method.config._target_=os.system"], 1),
        (["log=wandb", "launch=zero2", "training.select=first"], 1),
        (["method=bola", "model=llama3_8b", "task=math"], 1),  # no network, no weights
        (["-m", "seed=0,1", "training.lr=-1"], 1),
    ],
)
def test_torch_is_never_imported(repository, words, status):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=repository, capture_output=True, text=True, timeout=120
    )
    modules = set(next(line for line in done.stdout.splitlines() if line.startswith("MODULES")).split())
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "tombola_cli" in modules
    assert modules & HEAVY == set()


def test_a_run_that_is_done_is_told_without_torch(repository, tmp_path):
    from tombola_cli.jobs import examined, job
    from tombola_cli.records import Record, Score, write_record

    words = ["model=tiny_roberta", f"records.dir={tmp_path}", f"runs.dir={tmp_path}/runs"]
    names = ("commit", "dirty", "packages", "hardware", "model", "data", "command")
    cost = {"trainable": 1, "head": 1, "stored_bytes": 1, "seconds": {}, "tokens_per_second": None, "peak_bytes": None}
    now, identity = "2026-01-31T12:00:00+00:00", job(words, examined(words)[0]).id
    score = Score("textual_digits", "test", "accuracy", 0.4625, 360)
    record = Record(identity, now, now, "ok", {}, [score], cost=cost, provenance=dict.fromkeys(names))
    write_record(tmp_path, record)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert f"{identity} is finished" in done.stdout
    assert "accuracy" in done.stdout
    assert "0.4625  n=360" in done.stdout
    assert set(done.stdout.rpartition("MODULES")[2].split()) & HEAVY == set()
    assert not (tmp_path / "runs").exists()  # nothing is left behind by a run that was not started
