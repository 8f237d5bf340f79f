"""A NaN or infinite loss or gradient is seen before the step."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.tiny import adapted, rows, trained
from torch import nn

from tombola.training import AcceleratedTrainer, History, NonFinite, Settings, phase

FAST: dict[str, Any] = {"epochs": 2, "batch_size": 8, "token_budget": 64, "lr": 3e-3, "checkpoint_every": 3}  # 8 steps


class Steps:
    """A hook that keeps the values before each step."""

    def __init__(self) -> None:
        self.values: list[dict[str, torch.Tensor]] = []

    def before_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        self.values.append(trained(model))


def spoiled(model: nn.Module, bad: set[int], value: float) -> nn.Module:
    """The model with logits times `value` in its forwards of those numbers, from 0."""
    calls = [-1]

    def spoil(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        calls[0] += 1
        return output * value if calls[0] in bad else None

    model.get_base_model().lm_head.register_forward_hook(spoil)  # type: ignore[operator, union-attr]
    return model


def train(folder: Path, model: nn.Module, hooks: tuple[Any, ...] = (), **settings: Any) -> History:
    settings = {**FAST, "token_budget": 10_000, **settings}  # one forward a step
    trainer = AcceleratedTrainer(settings=Settings(**settings), rows=rows(), run_dir=folder, pad_token_id=0)
    return trainer.train(model, phase="train", hooks=hooks)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_stop_leaves_the_values_of_the_last_good_step(tmp_path: Path, value: float) -> None:
    model, good = spoiled(adapted(), {5}, value), Steps()
    with pytest.raises(NonFinite, match=r"Not finite in phase train, step 6: loss .*lower training\.lr"):
        train(tmp_path, model, (good,))
    assert len(good.values) == 5  # hooks are not called for the bad step
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_a_loss_that_is_not_stops_even_with_a_finite_gradient(tmp_path: Path, monkeypatch: Any) -> None:
    original = phase.accumulate
    monkeypatch.setattr(phase, "accumulate", lambda *args, **options: original(*args, **options) * math.nan)
    with pytest.raises(NonFinite, match=r"step 1: loss nan, gradient norm \d"):
        train(tmp_path, adapted())


def test_a_finite_loss_with_a_gradient_that_is_not_stops_too(tmp_path: Path) -> None:
    model = adapted()
    model.get_parameter(next(iter(trained(model)))).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFinite, match=r"step 1: loss \d.*gradient norm nan"):
        train(tmp_path, model)


def test_skip_counts_and_goes_on(tmp_path: Path) -> None:
    model, hook = spoiled(adapted(), {2, 5}, math.nan), Steps()
    history = train(tmp_path, model, (hook,), non_finite="skip")
    assert (history.steps, history.skipped) == (8, 2)
    assert [math.isnan(loss) for loss in history.losses] == [step in (2, 5) for step in range(8)]
    assert len(hook.values) == 6
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("skipped")] == [3, 6]
    assert lines[2]["loss"] is None


def test_rewind_goes_back_to_the_checkpoint_and_meets_other_batches(tmp_path: Path) -> None:
    orders = []
    for name, bad in (("undisturbed", set()), ("rewound", {4})):
        model = spoiled(adapted(), bad, math.nan)
        history = train(tmp_path / name, model, non_finite="rewind")
        assert history.rewinds == len(bad)
        assert (history.steps, history.skipped) == (8, 0)
        text = (tmp_path / name / "log.jsonl").read_text()
        orders.append([(line["step"], line["tokens"]) for line in map(json.loads, text.splitlines())])
    assert [step for step, _ in orders[1]] == list(range(1, 9))
    assert orders[0][:4] == orders[1][:4]  # after the checkpoint at step 3 one batch of the epoch is left
    assert orders[0][4:] != orders[1][4:]
    # each epoch still sees every row once
    for order in orders:
        assert sum(tokens for _, tokens in order[:4]) == sum(tokens for _, tokens in order[4:])


def test_rewinding_before_the_first_checkpoint_starts_over(tmp_path: Path) -> None:
    history = train(tmp_path, spoiled(adapted(), {1}, math.nan), non_finite="rewind")
    assert (history.steps, history.rewinds) == (8, 1)


def test_rewinding_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(NonFinite, match=r"after 3 rewinds\. Try a lower training\.lr"):
        train(tmp_path, spoiled(adapted(), set(range(4, 100)), math.nan), non_finite="rewind")
