"""Rows that are images: each is drawn anew each time, from the seed, the phase and the step alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.tiny import trained
from torch import nn

from tombola.models import load_host
from tombola.tasks import Example, Picture
from tombola.tasks.views import image_rows
from tombola.training import AcceleratedTrainer, Settings
from tombola.training.batches import row_length
from tombola_cli.config.compose import compose

FAST = {"epochs": 2, "batch_size": 4, "token_budget": 64, "lr": 1e-2, "checkpoint_every": 2}  # 6 steps


@pytest.fixture(scope="module")
def host() -> Any:
    return load_host(compose(["model=tiny_vit"])["model"], kind="classify", labels=3, seed=0)


@pytest.fixture(scope="module")
def rows(host: Any) -> list[dict[str, Any]]:
    noise = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    examples = [Example("", n % 3, n % 3, image=Picture(lambda n=n: noise[n], (0.5, 0.9))) for n in range(12)]
    return image_rows(examples, host.processor)


def fresh() -> nn.Module:
    """The tiny model with its head alone to train, as it is drawn."""
    return load_host(compose(["model=tiny_vit"])["model"], kind="classify", labels=3, seed=0).net


def make(folder: Path, rows: Any, **settings: Any) -> AcceleratedTrainer:
    return AcceleratedTrainer(
        settings=Settings(**{**FAST, **settings}), rows=rows, run_dir=folder, pad_token_id=0, padding_side="right"
    )


class Stop:
    """Dies before a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step == self.step:
            raise MemoryError("killed")


def pixels(trainer: AcceleratedTrainer, phase: str, step: int) -> torch.Tensor:
    drawn = trainer.feed.draw(phase, step)
    return torch.cat([trainer.feed.collate(turn, drawn.seed).inputs["pixel_values"] for turn in drawn.turns])


def test_a_step_sees_the_same_views_again_and_no_other_step_does(tmp_path: Path, rows: Any) -> None:
    trainer, again = make(tmp_path / "a", rows), make(tmp_path / "b", rows)
    assert torch.equal(pixels(trainer, "train", 1), pixels(again, "train", 1))
    one = make(tmp_path / "c", rows[:4])  # one step an epoch, of the same rows
    first, second = (pixels(one, "train", step).sort(0).values for step in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(pixels(trainer, "train", 1), pixels(make(tmp_path / "d", rows, seed=1), "train", 1))


def test_a_dense_gradient_sees_the_views_of_its_step(tmp_path: Path, rows: Any) -> None:
    feed = make(tmp_path, rows).feed
    assert feed.draw_whole("train", 1).seed == feed.draw("train", 1).seed != feed.draw("other", 1).seed


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path: Path, rows: Any) -> None:
    whole, cut, resumed, still = (fresh() for _ in range(4))
    make(tmp_path / "whole", rows).train(whole, phase="train")
    with pytest.raises(MemoryError):
        make(tmp_path / "cut", rows).train(cut, phase="train", hooks=[Stop(3)])
    make(tmp_path / "cut", rows).train(resumed, phase="train")
    assert equal(whole, resumed)
    uncropped = [{**row, "view": lambda seed, row=row: row["view"](None)} for row in rows]
    make(tmp_path / "still", uncropped).train(still, phase="train")
    assert not equal(whole, still)


def equal(one: nn.Module, other: nn.Module) -> bool:
    values, others = trained(one), trained(other)
    return values.keys() == others.keys() and all(torch.equal(values[name], others[name]) for name in values)


def test_what_measures_a_model_sees_whole_images(tmp_path: Path, rows: Any) -> None:
    seen = []
    watched = [{**row, "view": lambda seed, row=row: seen.append(seed) or row["view"](seed)} for row in rows]
    make(tmp_path, watched).accuracy(fresh())
    assert seen == [None] * 12


def test_a_row_counts_its_patches(rows: Any) -> None:
    assert rows[0]["size"] == (32, 32)
    assert row_length(rows[0]) == 4
