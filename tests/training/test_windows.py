"""A training cut into phases is the training in one piece, to the bit."""

import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.tiny import adapted, rows, trained
from torch import nn

from tombola.training import AcceleratedTrainer, Interrupted, Settings, Window

# 16 steps, 4 an epoch; about two micro-batches a step; warm-up ends in the second window
FAST = {
    "epochs": 4, "batch_size": 8, "token_budget": 64, "lr": 3e-3, "checkpoint_every": 2, "weight_decay": 0.1,
    "warmup_ratio": 0.3, "max_grad_norm": 0.03,
}  # fmt: skip
CUTS = (0, 1, 6, 16)


def make(folder: Path, validate: Any = None, **settings: Any) -> AcceleratedTrainer:
    return AcceleratedTrainer(
        settings=Settings(**{**FAST, **settings}), rows=rows(32), run_dir=folder, pad_token_id=0, validate=validate
    )


def cut(trainer: AcceleratedTrainer, model: nn.Module, hooks: Any = ()) -> None:
    """The training in windows, each from the state of the one before."""
    total, state = trainer.total_steps(), None
    for number, (first, last) in enumerate(itertools.pairwise(CUTS)):
        trainer.train(
            model, phase=f"part_{number}", steps=last - first, window=Window("all", first, total), optimizer=state,
            keep_optimizer=True, hooks=hooks,
        )  # fmt: skip
        state = trainer.optimizer_state(f"part_{number}")


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StopAt:
    def __init__(self, step: int) -> None:
        self.left = step

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_windows_are_the_whole_cut_in_pieces(tmp_path: Path, optimizer: str) -> None:
    whole, parts = adapted(), adapted()
    trainer = make(tmp_path / "whole", optimizer=optimizer)
    assert (trainer.total_steps(), trainer.steps_per_epoch, trainer.total_steps(0.5)) == (16, 4, 2)
    trainer.train(whole, phase="all")
    cut(make(tmp_path / "parts", optimizer=optimizer), parts)
    assert equal(trained(whole), trained(parts))
    kept = ("epoch", "loss", "lr", "grad_norm", "tokens")
    one, other = ([[line[key] for key in kept] for line in log(tmp_path / name)] for name in ("whole", "parts"))
    assert one == other
    assert [line["step"] for line in log(tmp_path / "parts")] == [1, *range(1, 6), *range(1, 11)]


@pytest.mark.parametrize("step", [1, 3, 4, 9])
def test_a_window_resumes_to_the_bit(tmp_path: Path, step: int) -> None:
    expected, model = adapted(dropout=0.1), adapted(dropout=0.1)
    cut(make(tmp_path / "undisturbed"), expected)
    with pytest.raises(Interrupted):
        cut(make(tmp_path / "stopped"), adapted(dropout=0.1), hooks=[StopAt(step)])
    cut(make(tmp_path / "stopped"), model)
    assert equal(trained(expected), trained(model))
    assert len(log(tmp_path / "stopped")) == 16


def test_a_phase_that_is_killed_before_its_first_checkpoint_starts_from_the_given_state_again(tmp_path: Path) -> None:
    class Kill:
        def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
            raise RuntimeError("killed")

    state = start_state(tmp_path)
    found = []
    for folder, hooks in ((tmp_path / "a", [Kill()]), (tmp_path / "a", []), (tmp_path / "b", [])):
        model = adapted()
        try:
            make(folder).train(model, phase="go", steps=3, optimizer=state, hooks=hooks)
        except RuntimeError:
            continue
        found.append(trained(model))
    assert equal(*found)
    fresh = adapted()
    make(tmp_path / "c").train(fresh, phase="go", steps=3)
    assert not equal(found[0], trained(fresh))


def start_state(folder: Path) -> dict[str, torch.Tensor]:
    trainer = make(folder / "before")
    trainer.train(adapted(), phase="warm", steps=3, keep_optimizer=True)
    return trainer.optimizer_state("warm")


def test_another_window_is_another_phase(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        make(tmp_path).train(adapted(), phase="part", steps=8, window=Window("all", 0, 16), hooks=[StopAt(3)])
    with pytest.raises(ValueError, match="was written by another run"):
        make(tmp_path).train(adapted(), phase="part", steps=8, window=Window("all", 4, 16))


def test_the_cap_is_on_the_whole(tmp_path: Path) -> None:
    trainer = make(tmp_path, max_steps=10)
    assert trainer.total_steps() == trainer.total_steps(7) == 10
    assert trainer.train(adapted(), phase="end", steps=4, window=Window("all", 6, 10)).steps == 4
    with pytest.raises(ValueError, match=r"longer than training\.max_steps=10: take its total from total_steps"):
        trainer.train(adapted(), phase="one", steps=4, window=Window("all", 0, 16))
    with pytest.raises(ValueError, match=r"Phase one of 5 steps does not lie within Window\(whole='all', first=6"):
        trainer.train(adapted(), phase="one", steps=5, window=Window("all", 6, 10))


def test_only_the_last_window_takes_the_best(tmp_path: Path) -> None:
    values = iter([0.9, 0.1, 0.5, 0.7, 0.2])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: nn.Module) -> float:
        seen.append(trained(model))
        return next(values)

    trainer = make(tmp_path, validate, select="best")
    model = adapted()
    first = trainer.train(model, phase="first", steps=6, window=Window("all", 0, 16))
    assert first.validations == [(4, 0.9)]  # after an epoch of the whole
    assert not equal(trained(model), seen[0])
    last = trainer.train(model, phase="last", steps=10, window=Window("all", 6, 16))
    assert last.validations == [(2, 0.1), (6, 0.5), (10, 0.7)]
    assert equal(trained(model), seen[3])


def test_a_state_that_was_not_kept_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    trainer, state = make(tmp_path), start_state(tmp_path)
    trainer.train(adapted(), phase="one", steps=1)
    for phase in ("one", "none"):
        with pytest.raises(ValueError, match=f"No optimizer state of phase '{phase}'.*keep_optimizer=True"):
            trainer.optimizer_state(phase)
    path = next(path for path, value in state.items() if value.ndim)
    for wrong in ({path: torch.zeros(2, 3)}, {"exp_avg/none": state[path]}):
        with pytest.raises(ValueError, match=r"optimizer state exp_avg.* to start phase two from has shape"):
            trainer.train(adapted(), phase="two", steps=1, optimizer=wrong)
