import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from tests.training.tiny import adapted, rows

from tombola.training import AcceleratedTrainer, Log, Settings
from tombola.training.trackers import Tracker

CONFIG = {
    "id": "bola-tiny-digits-s0-0123456789",
    "method": {"name": "bola", "config": {"alpha": 4.0, "target_modules": ["q_proj"]}},
    "model": {"name": "tiny_llama"},
    "task": {"name": "textual_digits"},
    "table": "table_1",
    "log": {"tracker": "tensorboard", "project": "tombola", "offline": True},
}


def trainer(folder: Path, log: Log) -> AcceleratedTrainer:
    settings = Settings(epochs=1, batch_size=8, token_budget=64)
    return AcceleratedTrainer(settings=settings, rows=rows(), run_dir=folder, pad_token_id=0, log=log)


def train_and_close(run: AcceleratedTrainer) -> None:
    assert run.train(adapted(), phase="train").steps == 4
    run.close()


def test_a_run_is_named_grouped_and_tagged_by_its_configuration() -> None:
    log = Log.from_config(CONFIG)
    assert (log.tracker, log.project, log.offline, log.run_id) == ("tensorboard", "tombola", True, CONFIG["id"])
    assert log.group == "table_1"
    assert log.tags == ("table_1", "bola", "tiny_llama", "textual_digits")
    assert Log.from_config({**CONFIG, "table": None}).group == "tiny_llama/textual_digits"


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"log\.tracker must be one of none, wandb, trackio, tensorboard\. Got 'mlflow'"
    ):
        Log(tracker="mlflow")


def test_none_starts_nothing(tmp_path: Path) -> None:
    tracker = Tracker(Accelerator(), Log(), tmp_path)
    tracker.numbers({"loss": 1.0}, step=1)
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_every_step_of_every_phase(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trainer(tmp_path, Log.from_config(CONFIG))
    model = adapted()
    history = run.train(model, phase="one")
    run.train(model, phase="two")
    run.report({"accuracy": 0.5})
    run.close()
    events = next(path.parent for path in tmp_path.rglob("events.out*") if "tombola" in str(path.parent))
    scalars = EventAccumulator(str(events)).Reload()
    assert [event.step for event in scalars.Scalars("one/loss")] == [1, 2, 3, 4]
    assert [event.value for event in scalars.Scalars("one/loss")] == pytest.approx(history.losses)
    assert [event.step for event in scalars.Scalars("two/loss")] == [5, 6, 7, 8]
    assert [event.step for event in scalars.Scalars("accuracy")] == [8]


@pytest.mark.parametrize("moment", ["init_trackers", "log", "end_training"])
def test_a_tracker_that_fails_is_a_warning(tmp_path: Path, monkeypatch: Any, moment: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(Accelerator, moment, fail)
    run = trainer(tmp_path, Log.from_config(CONFIG))
    expected = r"log=tensorboard is off from here \(no route to host\); log\.jsonl goes on"
    with pytest.warns(UserWarning, match=expected):
        train_and_close(run)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_other_ranks_start_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Accelerator, "is_main_process", False)
    assert Tracker(Accelerator(), Log.from_config(CONFIG), tmp_path).state == "off"


WANDB = """
import sys
from pathlib import Path
from tests.training.test_trackers import CONFIG, trainer
from tests.training.tiny import adapted
from tombola.training import Log

config = {**CONFIG, "log": {"tracker": sys.argv[2], "project": "tombola", "offline": sys.argv[3] == "offline"}}
run = trainer(Path(sys.argv[1]), Log.from_config(config))
run.train(adapted(), phase="train")
run.report({"accuracy": 0.5})
run.close()
"""


def start(repository: Path, folder: Path, tracker: str, mode: str = "offline") -> subprocess.CompletedProcess:
    """A run with a tracker in a process of its own, without a key, a home or a terminal."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {
        "PYTHONPATH": "src",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "TRACKIO_DIR": str(folder / "trackio"),
    }
    command = [sys.executable, "-W", "ignore", "-c", WANDB, str(folder / "run"), tracker, mode]
    return subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )


@pytest.mark.recipe
@pytest.mark.parametrize("mode", ["offline", "online"])  # online without a key falls back to offline
def test_wandb_works_offline_and_asks_for_nothing(repository: Path, tmp_path: Path, mode: str) -> None:
    pytest.importorskip("wandb")
    for _ in range(2):  # the second is a resumed run: the same id
        done = start(repository, tmp_path, "wandb", mode)
        assert done.returncode == 0, done.stderr
    found = sorted(path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert found
    assert all(name.endswith(CONFIG["id"]) for name in found)
    written = b"".join(path.read_bytes() for path in (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    for text in ("table_1", "textual_digits", "train/loss", "accuracy", "target_modules"):
        assert text.encode() in written, text


@pytest.mark.recipe
def test_trackio_works_offline(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    done = start(repository, tmp_path, "trackio")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["step"] == 4
    assert "off from here" not in done.stderr
    assert list((tmp_path / "trackio").glob("tombola*.db"))
