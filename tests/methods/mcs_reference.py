"""Sparse adapters from the formulas: a dense delta, a dense mask, AdamW by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from tests.methods.search_runs import host, rows
from torch import Tensor, nn
from torch.func import functional_call

BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass
class Dense:
    """One weight's What, M, and Adam's moments, all (out, in)."""

    values: Tensor
    mask: Tensor
    mean: Tensor
    square: Tensor

    @classmethod
    def like(cls, weight: Tensor) -> "Dense":
        return cls(torch.zeros_like(weight), torch.ones_like(weight), *(torch.zeros_like(weight) for _ in range(2)))


@dataclass
class DenseSearch:
    """Algorithm 1 of arXiv 2507.07140; `batches[step]` are row numbers."""

    weights: dict[str, str]  # layer: name of its weight in the net
    batches: Sequence[Sequence[int]]
    draws: Sequence[int] = ()
    choose: Callable[[str, Tensor, Tensor, Tensor, int], Tensor] | None = (
        None  # M of (layer, What, M, dL/dM at 1, steps done)
    )
    lr: float = 1e-2
    weight_decay: float = 0.0
    score_rows: int | None = None
    tickets: list[dict[str, Tensor]] = field(default_factory=list)

    def run(self, masks: dict[str, Tensor] | None = None) -> dict[str, Dense]:
        """Every layer's end, from zero and M = 1 or the `masks`."""
        dense = {path: Dense.like(self.frozen[name]) for path, name in self.weights.items()}
        for path, mask in (masks or {}).items():
            dense[path].mask = mask
        for step, batch in enumerate(self.batches):
            for path, (gradient, _) in self.gradients(dense, batch, awake=False).items():
                self.move(dense[path], gradient, self.rate(step), step + 1)
            if step + 1 in self.draws:
                self.draw(dense, self.gradients(dense, batch[: self.score_rows], awake=True), step + 1)
        return dense

    @cached_property
    def net(self) -> nn.Module:
        return host(torch.float64).net

    @cached_property
    def frozen(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.net.named_parameters()}

    def rate(self, step: int) -> float:
        return self.lr * (len(self.batches) - step) / len(self.batches)

    def gradients(
        self, dense: dict[str, Dense], batch: Sequence[int], *, awake: bool
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """dL/dWhat and dL/dM of each layer, at M or, awake, at M = 1."""
        values = {path: one.values.clone().requires_grad_() for path, one in dense.items()}
        masks = {p: (torch.ones_like(d.mask) if awake else d.mask).clone().requires_grad_() for p, d in dense.items()}
        changed = {name: self.frozen[name] + values[path] * masks[path] for path, name in self.weights.items()}
        ids = torch.tensor([rows()[row]["input_ids"] for row in batch])
        logits = functional_call(self.net, changed, kwargs={"input_ids": ids}).logits[:, :-1]
        nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        return {path: (values[path].grad, masks[path].grad) for path in dense}

    def move(self, one: Dense, gradient: Tensor, lr: float, time: int) -> None:
        mean = BETAS[0] * one.mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * one.square + (1 - BETAS[1]) * gradient**2
        size = (square / (1 - BETAS[1] ** time)).sqrt() + EPS
        moved = one.values * (1 - lr * self.weight_decay) - lr * mean / (1 - BETAS[0] ** time) / size
        on = one.mask.bool()
        one.values, one.mean, one.square = (
            torch.where(on, *pair) for pair in ((moved, one.values), (mean, one.mean), (square, one.square))
        )

    def draw(self, dense: dict[str, Dense], gradients: dict[str, tuple[Tensor, Tensor]], done: int) -> None:
        masks = {path: self.choose(path, one.values, one.mask, gradients[path][1], done) for path, one in dense.items()}
        for path, one in dense.items():
            stays = masks[path] * one.mask  # what was out and comes in, like what goes, loses its moments
            one.mean, one.square, one.mask = one.mean * stays, one.square * stays, masks[path]
        self.tickets.append({path: mask.clone() for path, mask in masks.items()})


def mask_of_largest(scores: Tensor, units: int, block: int = 1) -> Tensor:
    """1 in the `units` tiles with the largest sums, by sorting a list; the smaller number first among equals."""
    out, into = scores.shape
    corners = [(i, j) for i in range(0, out, block) for j in range(0, into, block)]
    sums = [float(scores[i : i + block, j : j + block].sum()) for i, j in corners]
    mask = torch.zeros_like(scores)
    for number in sorted(range(len(sums)), key=lambda n: (-sums[n], n))[:units]:
        i, j = corners[number]
        mask[i : i + block, j : j + block] = 1.0
    return mask
