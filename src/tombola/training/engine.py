"""What the loop asks of a launch: `plain.py` answers for one process and for DDP, `zero.py` for DeepSpeed.

An engine wraps a model for one phase and hands it back plain and whole. Whatever it returns (values, gradients,
optimizer state) has whole shapes and is the same on every rank, so a checkpoint of one kind of launch resumes under
another.
"""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer


class Runner(Protocol):
    """Forward and backward."""

    def __call__(self, **inputs: Tensor) -> Any:
        """The model's output."""

    def micro_step(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward of a micro-batch; gradients are averaged over ranks in the last."""

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradients."""


class Engine(Runner, Protocol):
    """A runner that can also move the parameters."""

    optimizer: Optimizer  # torch's own
    shapes: dict[str, torch.Size]  # of the trained parameters, whole

    def gradient_norm(self) -> float:
        """2-norm of the whole gradient."""

    def step(self, max_norm: float | None, norm: float, *, seed: int) -> None:
        """Clips the gradient, whose norm is `norm`, to `max_norm`, moves the parameters, forgets the gradient.

        `seed` is the same on every rank, and of this step: for values that are rounded stochastically.
        """

    def forget_gradients(self) -> None:
        """Drops the gradient."""

    def values(self) -> dict[str, Tensor]:
        """Trainable values by parameter name."""

    def load_values(self, values: Mapping[str, Tensor]) -> None:
        """Sets the trainable values that are given, in place."""

    def optimizer_state(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """The optimizer's tensors as `key/parameter name`, of some parameters or of all."""

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Sets the optimizer's tensors, from none or others."""

    def overwrite_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Overwrites some of the tensors that `optimizer_state` gives; the others stay."""

    def close(self) -> None:
        """Gives the model back, plain and whole."""
