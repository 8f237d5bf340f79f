import math

import pytest
import torch
from torch import Tensor, nn

from tombola.training.per_entry import AdamWPerEntry

OPTIONS = {"lr": 0.05, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.3}


def parameter(entries: int = 7) -> nn.Parameter:
    return nn.Parameter(torch.randn(entries, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def steps(count: int, entries: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(entries, dtype=torch.float64, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("betas", [(0.8, 0.99), (0.0, 0.99), (0.9, 0.999)])
def test_with_one_age_it_is_adamw(betas: tuple[float, float]) -> None:
    one, other = parameter(), parameter()
    optimizers = [
        AdamWPerEntry([one], **{**OPTIONS, "betas": betas}),
        torch.optim.AdamW([other], **{**OPTIONS, "betas": betas}),
    ]
    for gradient in steps(50):
        one.grad, other.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
        assert float((one - other).detach().abs().max()) < 1e-12
    assert set(optimizers[0].state[one]) == {"exp_avg", "exp_avg_sq", "age"}


def test_an_entry_of_another_age_is_corrected_by_its_own() -> None:
    """Against the formula, entry by entry; entry 2 begins anew after three steps."""
    moved = parameter(3)
    optimizer = AdamWPerEntry([moved], **OPTIONS)
    values, mean, square, age = moved.detach().tolist(), [0.0] * 3, [0.0] * 3, [0] * 3
    for number, gradient in enumerate(steps(6, 3)):
        if number == 3:
            for key in ("exp_avg", "exp_avg_sq", "age"):
                optimizer.state[moved][key][2] = 0
            mean[2], square[2], age[2] = 0.0, 0.0, 0
        moved.grad = gradient.clone()
        optimizer.step()
        for i, g in enumerate(gradient.tolist()):
            age[i] += 1
            mean[i] = 0.8 * mean[i] + 0.2 * g
            square[i] = 0.99 * square[i] + 0.01 * g * g
            step = mean[i] / (1 - 0.8 ** age[i]) / (math.sqrt(square[i] / (1 - 0.99 ** age[i])) + 1e-6)
            values[i] += -0.05 * 0.3 * values[i] - 0.05 * step
    assert moved.tolist() == pytest.approx(values, abs=1e-12)
    assert optimizer.state[moved]["age"].tolist() == [6, 6, 3]


def test_float32_keeps_its_digits_at_the_first_step() -> None:
    """1 - 0.999 from a rounded 0.999 would be off by 5e-5."""
    moved = nn.Parameter(torch.zeros(1))
    optimizer = AdamWPerEntry([moved], lr=1.0, betas=(0.9, 0.999), eps=0.0)
    moved.grad = torch.tensor([0.37])
    optimizer.step()
    assert float(moved.detach()) == pytest.approx(-1.0, abs=1e-6)


def test_a_parameter_without_a_gradient_stays() -> None:
    moved = parameter()
    optimizer = AdamWPerEntry([moved], **OPTIONS)
    optimizer.step()
    assert torch.equal(moved, parameter())
    assert not optimizer.state[moved]
