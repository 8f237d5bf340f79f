"""AdamW in which every entry has an age of its own, for parameters whose entries are replaced while they train.

SpIEL (Ansell et al., 2024, arXiv 2401.16405) gives a grown entry the mean gradient of the steps that chose it and
corrects its bias by those steps alone; under one common step it would move far too little or too much.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

OPTIONS = ("lr", "betas", "eps", "weight_decay")


class AdamWPerEntry(Optimizer):
    """Decoupled weight decay as in `torch.optim.AdamW`, and the same steps while all ages are equal.

    State of each parameter, all of its shape: `exp_avg`, `exp_avg_sq`, and `age`, the steps behind each average.
    """

    def __init__(self, params: Any, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, **{key: group[key] for key in OPTIONS})

    def _move(
        self, parameter: Tensor, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state.update({key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq", "age")})
        mean, square, age = state["exp_avg"], state["exp_avg_sq"], state["age"]
        age += 1
        parameter.mul_(1 - lr * weight_decay)
        mean.lerp_(gradient, 1 - betas[0])
        square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        size = square.div(_one_minus_power(betas[1], age)).sqrt_().add_(eps)
        parameter.addcdiv_(mean / _one_minus_power(betas[0], age), size, value=-lr)


def _one_minus_power(beta: float, age: Tensor) -> Tensor:
    """1 - beta^age without the cancellation that would leave float32 four digits of 1 - 0.999."""
    return torch.expm1(age * (math.log(beta) if beta else -math.inf)).neg_()
