"""The mean gradient over some optimizer batches, without a step: what methods score coordinates by."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from tombola.training import random_state
from tombola.training.accumulate import accumulate
from tombola.training.feed import Feed
from tombola.training.loss import takes_logits_to_keep
from tombola.training.weights import trainable_parameters

PHASE = "gradients"  # names the data order, beside those of the training phases


class LocalRunner:
    """Forward and backward of this process alone; the caller sums over ranks."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __call__(self, **inputs: Tensor) -> Any:
        """The model's output."""
        return self.model(**inputs)

    def micro_step(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Nothing is shared before the end."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradients."""
        loss.backward()


def mean_gradients(model: nn.Module, feed: Feed, *, batches: int) -> dict[str, Tensor]:
    """Mean over `batches` optimizer batches of each trainable parameter's gradient, the same on every rank.

    The model is whole on each rank here, whatever the launch. Its mode (train or eval) and gradients stay as they were.
    """
    if batches < 1:
        raise ValueError(f"gradients() needs at least 1 batch. Got {batches}.")
    model.to(feed.ranks.device)
    parameters = trainable_parameters(model)
    kept = {name: parameter.grad for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.grad = None
        with random_state.seeded(feed.settings.seed, PHASE, feed.ranks.rank):
            for step in range(batches):
                drawn = feed.draw(PHASE, step)
                accumulate(LocalRunner(model), feed, drawn, keeps_logits=takes_logits_to_keep(model))
        scale = 1 / (batches * feed.ranks.count)  # accumulate() has multiplied by the ranks, for engines that average
        return {name: feed.ranks.sum(_gradient(parameter)) * scale for name, parameter in parameters.items()}
    finally:
        for name, parameter in parameters.items():
            parameter.grad = kept[name]


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
