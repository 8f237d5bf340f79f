"""Entries that move bring their optimizer state along."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.tiny import adapted, rows, trained
from torch import Tensor, nn

from tombola.training import AcceleratedTrainer, Rewrite, Settings, reindexed

FAST = {"epochs": 1, "batch_size": 8, "token_budget": 64, "lr": 3e-3, "schedule": "constant", "checkpoint_every": 2}
NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"  # (40, 3), zeros at the start
ORIGIN = torch.tensor([3, -1, 0, 1, -1, *range(5, 40)])


def make(folder: Path, **settings: Any) -> AcceleratedTrainer:
    return AcceleratedTrainer(
        settings=Settings(**{**FAST, **settings}), rows=rows(32), run_dir=folder, pad_token_id=0
    )  # fmt: skip


class Move:
    """Rewrites one parameter after a step, and keeps what the optimizer had before and after."""

    def __init__(self, trainer: AcceleratedTrainer, at: int = 1, state: dict[str, Tensor] | None = None) -> None:
        self.trainer = trainer
        self.at = at
        self.state = state or {}

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step != self.at:
            return
        engine = self.trainer.running.engine  # type: ignore[union-attr]
        parameter = model.get_parameter(NAME)
        self.before = {path: value.clone() for path, value in engine.optimizer_state().items()}
        values = torch.where((ORIGIN >= 0)[:, None], parameter.detach()[ORIGIN.clamp(min=0)], 0.5)
        self.trainer.rewrite(model, {NAME: Rewrite(values, ORIGIN, self.state)})
        assert model.get_parameter(NAME) is parameter
        assert torch.equal(parameter, values)
        self.after = {path: value.clone() for path, value in engine.optimizer_state().items()}
        self.values = trained(model)


def test_a_state_is_reindexed_by_hand() -> None:
    state = {"exp_avg/a": torch.tensor([1.0, 2.0, 3.0]), "step/a": torch.tensor(7.0), "exp_avg/b": torch.ones(2)}
    rewrite = Rewrite(torch.zeros(4), torch.tensor([2, -1, 0, -1]), {"exp_avg": torch.tensor([9.0, 8.0, 9.0, 7.0])})
    found = reindexed(state, "a", rewrite)
    assert found["exp_avg/a"].tolist() == [3, 8, 1, 7]
    assert (found["step/a"], found["exp_avg/b"].tolist()) == (7, [1, 1])
    assert reindexed(state, "a", Rewrite(torch.zeros(1), torch.tensor([-1])))["exp_avg/a"].tolist() == [0]
    assert state["exp_avg/a"].tolist() == [1, 2, 3]
    blocks = {"exp_avg/a": torch.arange(8.0).view(2, 2, 2)}
    found = reindexed(blocks, "a", Rewrite(torch.zeros(3, 2, 2), torch.tensor([1, -1, 0])))
    assert found["exp_avg/a"].flatten().tolist() == [4, 5, 6, 7, 0, 0, 0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(("optimizer", "keys"), [("adamw", {"exp_avg", "exp_avg_sq", "step"}), ("sgd", set())])
def test_state_moves_with_its_entry(tmp_path: Path, optimizer: str, keys: set[str]) -> None:
    trainer = make(tmp_path, optimizer=optimizer)
    seeds = {"exp_avg": torch.full((40, 3), 0.25), "unknown": torch.ones(40, 3)}
    move = Move(trainer, state=seeds)
    trainer.train(adapted(), phase="train", hooks=[move])
    assert {path.partition("/")[0] for path in move.after} == keys
    for path, value in move.after.items():
        key, _, name = path.partition("/")
        if name == NAME and key != "step":
            cleared = {"exp_avg": 0.25, "exp_avg_sq": 0.0}[key]
            expected = torch.where((ORIGIN >= 0)[:, None], move.before[path][ORIGIN.clamp(min=0)], cleared)
            assert torch.equal(value, expected)
            assert float(value.abs().max()) > 0
        else:
            assert torch.equal(value, move.before[path])


def test_the_next_step_is_that_of_a_fresh_optimizer_with_the_moved_state(tmp_path: Path) -> None:
    trainer, whole = make(tmp_path / "one"), adapted()
    move = Move(trainer)
    trainer.train(whole, phase="order", hooks=[move])
    other = adapted()
    with torch.no_grad():
        for name, value in move.values.items():
            other.get_parameter(name).copy_(value)
    from tombola.training import Window

    make(tmp_path / "two").train(other, phase="rest", steps=2, window=Window("order", 2, 4), optimizer=move.after)
    assert all(torch.equal(value, trained(other)[name]) for name, value in trained(whole).items())


def test_what_is_no_rewrite_of_a_trained_parameter_is_refused(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    with pytest.raises(ValueError, match="for hooks, while a phase runs"):
        trainer.rewrite(adapted(), {NAME: Rewrite(torch.zeros(40, 3), ORIGIN)})
    wrong = {
        "'none', which is not among the trained": {"none": Rewrite(torch.zeros(1), torch.zeros(1).long())},
        r"has \(40, 3\), got \(39, 3\)": {NAME: Rewrite(torch.zeros(39, 3), ORIGIN[:39])},
        "needs one origin for each": {NAME: Rewrite(torch.zeros(40, 3), ORIGIN[:39])},
        "or below 40": {NAME: Rewrite(torch.zeros(40, 3), ORIGIN + 1)},
    }

    class Try:
        def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
            for message, rewrites in wrong.items():
                with pytest.raises(ValueError, match=message):
                    trainer.rewrite(model, rewrites)

    trainer.train(adapted(), phase="train", steps=1, hooks=[Try()])
