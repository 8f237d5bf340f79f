"""bfloat16 values move by steps that their precision cannot hold."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.tiny import adapted, rows, trained
from torch import nn

from tombola.training import AcceleratedTrainer, Interrupted, Settings
from tombola.training.half import stand_in, step_halves, stochastically_rounded


def rounded(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return stochastically_rounded(values, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("value", [1.0 + 0.3 * 2**-7, -3.14159, 1e-3, 2.0**-126])
def test_rounding_has_the_value_as_its_mean(value: float) -> None:
    exact = torch.full((200_000,), value)
    found = rounded(exact)
    below, above = found.double().min(), found.double().max()
    ulp = float(above - below)
    assert set(found.tolist()) == {float(below), float(above)} or value == 2.0**-126
    # five standard deviations of a mean of 200,000 draws between two neighbours
    assert abs(float(found.double().mean()) - float(exact[0].double())) <= 5 * 0.5 * ulp / 200_000**0.5


def test_what_bfloat16_can_hold_is_left_alone() -> None:
    held = torch.randn(1000).bfloat16()
    held = torch.cat([held, torch.tensor([0.0, -0.0, float("inf"), float("-inf")]).bfloat16()])
    assert torch.equal(rounded(held.float()), held)
    assert rounded(torch.tensor([float("nan")])).isnan().all()


def test_steps_far_below_half_a_unit_add_up_on_average() -> None:
    """20 steps of 1e-4 from 1, where bfloat16's neighbours are 4e-3 and 8e-3 away."""
    parameter = nn.Parameter(torch.ones(100_000, dtype=torch.bfloat16))
    standing = stand_in(parameter)
    optimizer = torch.optim.SGD([standing], lr=1e-4)
    for seed in range(20):
        parameter.grad = torch.ones_like(parameter)
        step_halves(optimizer, {"values": parameter}, {"values": standing}, seed=seed)
    assert float(parameter.detach().double().mean()) == pytest.approx(1 - 20e-4, abs=1e-4)
    assert standing.numel() == 0
    nearest = torch.ones(1, dtype=torch.bfloat16)
    assert torch.equal((nearest.float() - 1e-4).bfloat16(), nearest)  # what rounding to the nearest would have done


def test_the_step_is_torch_s_own_in_float32() -> None:
    start = torch.randn(50, 4).bfloat16()
    parameter, exact = nn.Parameter(start.clone()), nn.Parameter(start.float())
    standing = stand_in(parameter)
    options = {"lr": 0.1, "weight_decay": 0.5}
    optimizer, other = torch.optim.AdamW([standing], **options), torch.optim.AdamW([exact], **options)
    parameter.grad = torch.randn(50, 4).bfloat16()
    exact.grad = parameter.grad.float()
    step_halves(optimizer, {"values": parameter}, {"values": standing}, seed=3)
    other.step()
    assert float(((parameter - exact) / exact).detach().abs().max()) < 2**-7
    assert torch.equal(optimizer.state[standing]["exp_avg"], other.state[exact]["exp_avg"])


def halved() -> nn.Module:
    """The values of some LoRA factors in bfloat16."""
    model = adapted()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "q_proj" in name:
            parameter.data = parameter.data.bfloat16()
    return model


class StopAt:
    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_per_entry", "sgd"])
def test_a_phase_trains_bfloat16_values_and_resumes_to_the_bit(tmp_path: Path, optimizer: str) -> None:
    def train(model: nn.Module, folder: Path, *hooks: Any) -> None:
        settings = Settings(
            epochs=2, batch_size=8, token_budget=64, lr=3e-3, max_grad_norm=0.03, checkpoint_every=2,
            weight_decay=0.1, optimizer=optimizer,
        )  # fmt: skip
        trainer = AcceleratedTrainer(settings=settings, rows=rows(), run_dir=folder, pad_token_id=0)
        trainer.train(model, phase="train", hooks=hooks)

    start, whole, resumed = trained(halved()), halved(), halved()
    train(whole, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(halved(), tmp_path / "stopped", StopAt())
    train(resumed, tmp_path / "stopped")
    for name, value in trained(whole).items():
        assert value.dtype == (torch.bfloat16 if "q_proj" in name else torch.float32)
        assert torch.equal(value, trained(resumed)[name])
        assert not torch.equal(value, start[name])
