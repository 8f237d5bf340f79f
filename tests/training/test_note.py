"""A method's own lines in the log: once each, whatever stops the run."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.training.tiny import adapted, rows
from torch import nn

from tombola.training import AcceleratedTrainer, Interrupted, Settings
from tombola.training.trackers import Tracker


def make(folder: Path) -> AcceleratedTrainer:
    settings = Settings(epochs=1, batch_size=8, token_budget=64, checkpoint_every=2)  # 4 steps
    return AcceleratedTrainer(settings=settings, rows=rows(), run_dir=folder, pad_token_id=0)


class Notes:
    """Notes a number at every other step, and may be stopped with a signal or killed after one."""

    def __init__(self, trainer: AcceleratedTrainer, stop: int | None = None, die: int | None = None) -> None:
        self.trainer, self.stop, self.die = trainer, stop, die

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step % 2 == 0:
            self.trainer.note("train", {"density": step / 8})
        if step == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        if step == self.die:
            raise RuntimeError("killed")


def fit(folder: Path, **moments: Any) -> None:
    trainer = make(folder)
    trainer.note("search", {"drawn": 3})
    trainer.train(adapted(), phase="train", hooks=[Notes(trainer, **moments)])
    trainer.note("train", {"density": 0.25, "flip_rate": float("nan")})


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    return [line if "loss" not in line else {"step": line["step"]} for line in lines]


EXPECTED = [
    {"phase": "search", "step": 0, "drawn": 3},
    {"phase": "train", "step": 1, "density": 0.0},
    {"step": 1},
    {"step": 2},
    {"phase": "train", "step": 3, "density": 0.25},
    {"step": 3},
    {"step": 4},
    {"phase": "train", "step": 4, "density": 0.25, "flip_rate": None},
]


@pytest.mark.parametrize("moments", [{}, {"stop": 1}, {"stop": 2}, {"die": 0}, {"die": 2}, {"die": 3}])
def test_a_note_is_there_once_after_any_resume(tmp_path: Path, moments: dict[str, int]) -> None:
    try:
        fit(tmp_path, **moments)
    except (Interrupted, RuntimeError):
        assert moments
    fit(tmp_path)
    fit(tmp_path)  # finished: loaded
    assert log(tmp_path) == EXPECTED


def test_the_tracker_hears_a_note_at_its_step(tmp_path: Path, monkeypatch: Any) -> None:
    heard: list[tuple[dict[str, float], int]] = []
    monkeypatch.setattr(Tracker, "numbers", lambda self, values, step: heard.append((values, step)))
    fit(tmp_path)
    assert [entry for entry in heard if "train/loss" not in entry[0]] == [
        ({"search/drawn": 3}, 0),
        ({"train/density": 0.0}, 1),
        ({"train/density": 0.25}, 3),
        ({"train/density": 0.25, "train/flip_rate": pytest.approx(float("nan"), nan_ok=True)}, 4),
    ]


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.ranks.rank = 1
    trainer.note("train", {"density": 0.5})
    assert not (tmp_path / "log.jsonl").exists()
