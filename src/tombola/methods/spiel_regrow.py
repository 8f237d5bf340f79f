"""SpIEL's selection as a hook: gradients of candidates are added up over some steps, then entries change places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tombola.adapters import SparseDeltaLinear, sparse_layers, values_parameter
from tombola.adapters.wide import WideBuffers, at_least_float32
from tombola.methods.sparse import ADAPTER, values_of
from tombola.tickets import grow_and_drop, origins, top_k
from tombola.training import Rewrite

if TYPE_CHECKING:
    from tombola.training import Trainer

CANDIDATES = "sparse_delta_candidates"


@dataclass
class Regrow:
    """For `period` steps at a time: the first `accumulate` add up, and after the last of these the support changes.

    `fraction(done, total)` is the share of it that may change. What has been added up is in buffers of the layers, so
    that checkpoints have it.
    """

    model: nn.Module
    trainer: Trainer
    phase: str
    period: int
    accumulate: int
    fraction: Callable[[int, int], float]
    layers: dict[str, SparseDeltaLinear] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = sparse_layers(self.model)

    @contextmanager
    def candidates_kept(self) -> Iterator[None]:
        """Inside, each layer has buffers for as many candidates as it has entries."""
        for layer in self.layers.values():
            support = layer.support(ADAPTER)
            dtype = at_least_float32(values_of(layer)[:0]).dtype
            zeros = torch.zeros(support.numel(), dtype=dtype, device=support.device)
            buffers = WideBuffers(persistent=True)
            buffers.update({"index": torch.zeros_like(support), "sum": zeros, "squares": zeros.clone()})
            layer.add_module(CANDIDATES, buffers)
        try:
            yield
        finally:
            for layer in self.layers.values():
                delattr(layer, CANDIDATES)

    def before_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        """Adds up the gradients of the step's batch."""
        place = step % self.period
        if place >= self.accumulate:
            return

        def see(path: str, gradient: Tensor) -> None:
            seen, flat = candidates(self.layers[path]), gradient.flatten()
            if place == 0:
                seen["index"].copy_(top_k(flat.abs(), seen["index"].numel()))
                seen["sum"].zero_()
                seen["squares"].zero_()
            of_candidates = flat[seen["index"]]
            seen["sum"].add_(of_candidates)
            seen["squares"].addcmul_(of_candidates, of_candidates)

        self.trainer.dense_gradients(model, self.layers, see, phase=self.phase, step=step)

    @torch.no_grad()
    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        """Drops and grows."""
        if step % self.period != self.accumulate - 1:
            return
        share = self.fraction(step + 1, self.trainer.total_steps())
        rewrites, changed, entries = {}, 0, 0
        for path, layer in self.layers.items():
            old, values = layer.support(ADAPTER), layer.dense_values(ADAPTER).flatten()
            new = self.changed(layer, values[old].abs(), int(share * old.numel()))
            origin = origins(new, old)
            rewrites[values_parameter(path)] = Rewrite(values[new], origin, self.moments(layer, new, optimizer))
            layer.put_index(ADAPTER, new)
            changed, entries = changed + int((origin < 0).sum()), entries + old.numel()
        self.trainer.rewrite(model, rewrites)
        self.trainer.note(self.phase, {"replaced": changed / entries})

    def changed(self, layer: SparseDeltaLinear, keep: Tensor, count: int) -> Tensor:
        """The layer's next support."""
        seen = candidates(layer)
        grow = seen["sum"].new_zeros(layer.all_units(ADAPTER))
        grow[seen["index"]] = seen["sum"].abs()
        within = torch.zeros_like(grow, dtype=torch.bool)
        within[seen["index"]] = True
        return grow_and_drop(layer.support(ADAPTER), keep, grow, count, within=within, regrow=True)

    def moments(self, layer: SparseDeltaLinear, support: Tensor, optimizer: Any) -> dict[str, Tensor]:
        """Adam's state for entries of `support` that are grown, from their means; 0 for others.

        The means are multiplied by what the bias correction will divide by: 1 - beta^age, the age being the entry's own
        or, in an optimizer without, the number of steps.
        """
        betas = optimizer.param_groups[0].get("betas")
        if betas is None:
            return {}
        states = [state for state in optimizer.state.values() if state]
        per_entry = any("age" in state for state in states)
        age = float(self.accumulate if per_entry else max(float(state["step"]) for state in states))
        seen = candidates(layer)
        sums, squares = (seen["sum"].new_zeros(layer.all_units(ADAPTER)) for _ in range(2))
        sums[seen["index"]], squares[seen["index"]] = seen["sum"], seen["squares"]
        return {
            "exp_avg": sums[support] / self.accumulate * (1 - betas[0] ** age),
            "exp_avg_sq": squares[support] / self.accumulate * (1 - betas[1] ** age),
            "age": torch.full_like(sums[support], age),
        }


def candidates(layer: SparseDeltaLinear) -> WideBuffers:
    """The layer's buffers: candidates' indices, sums of their gradients, and of the squares."""
    return layer.get_submodule(CANDIDATES)  # type: ignore[return-value]
