"""Gradients with respect to dense weights, one layer at a time: what methods choose entries outside a support by.

No weight gets a `.grad` and no tape is kept for one: an identity node behind each layer's output sees that output's
gradient Gy in backward, and with the layer's input X the weight's is Gy^T X (sparse training after RigL, Evci et al.
2020, and SpIEL, Ansell et al. 2024, both of which read a dense gradient to grow).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.training import random_state
from tombola.training.accumulate import accumulate
from tombola.training.feed import Feed
from tombola.training.gradients import LocalRunner
from tombola.training.loss import takes_logits_to_keep

See = Callable[[str, Tensor], None]


def dense_gradients(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    see: See,
    feed: Feed,
    *,
    phase: str,
    step: int,
    rows: int | None,
    redraws: Sequence[tuple[int, int]] = (),
) -> None:
    """Calls `see(path, G)` for each layer; see `Trainer.dense_gradients`."""
    if not layers:
        raise ValueError("dense_gradients() was given no layer.")
    if rows is not None and rows < 1:
        raise ValueError(f"dense_gradients() needs at least 1 row. Got rows={rows}.")
    ranks = feed.ranks

    def take(path: str, of_output: Tensor, given: Tensor) -> None:
        # accumulate() has multiplied the loss by the ranks, for engines that average
        see(path, ranks.sum(weight_gradient(of_output, given)).div_(ranks.count))

    batch = feed.draw_whole(phase, step, rows=rows, redraws=redraws)
    draws = random_state.seeded(feed.settings.seed, "dense gradients", phase, step, ranks.rank)
    with draws, _frozen(model), _tapped(layers, take, ranks.device):
        accumulate(LocalRunner(model), feed, batch, keeps_logits=takes_logits_to_keep(model))


def weight_gradient(of_output: Float[Tensor, "*rows out"], given: Float[Tensor, "*rows in"]) -> Float[Tensor, "out in"]:
    """Gy^T X in the dtype of Gy, as autograd has it, then at least float32."""
    gradient = of_output.flatten(0, -2).T @ given.flatten(0, -2).to(of_output.dtype)
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32))


class _Tap(torch.autograd.Function):
    """The identity, whose backward hands on the gradient and the layer's input. `start` is what requires gradients."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, given: Tensor, start: Tensor, take: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        ctx.save_for_backward(given)
        ctx.take = take
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        ctx.take(gradients[0], ctx.saved_tensors[0])
        return gradients[0], None, None, None


@contextlib.contextmanager
def _tapped(
    layers: Mapping[str, nn.Module], take: Callable[[str, Tensor, Tensor], None], device: torch.device
) -> Iterator[None]:
    start = torch.zeros((), device=device, requires_grad=True)

    def tap(path: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return _Tap.apply(output, inputs[0].detach(), start, lambda *seen: take(path, *seen))

        return hook

    handles = [layer.register_forward_hook(tap(path)) for path, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires gradients inside: nothing is kept for one, and no hook of DDP or DeepSpeed is called."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
