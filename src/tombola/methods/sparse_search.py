"""The search of sparse adapters: tickets are drawn, and values and moments brought to them (arXiv 2507.07140)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tombola.adapters import SparseDeltaConfig, SparseDeltaLinear, awake, sparse_layers, values_parameter
from tombola.adapters.sparse_delta_size import units_of
from tombola.adapters.sparse_delta_start import random_units
from tombola.methods.sparse import ADAPTER, values_of
from tombola.tickets import (
    as_tiles,
    drop_fraction,
    grow_and_drop,
    kept_layers,
    origins,
    overlap,
    score,
    top_k,
)
from tombola.training import Rewrite, reindexed

if TYPE_CHECKING:
    from tombola.training import Trainer


@dataclass
class Search:
    """Draws the tickets of one training, `whole` by name and `total` steps long; a hook where it draws inside a phase.

    `draws` are the numbers of optimizer steps after each of which tickets are drawn. `rows` limits the batch that the
    gradient is taken on.
    """

    model: nn.Module
    trainer: Trainer
    config: SparseDeltaConfig
    score: str
    whole: str
    total: int
    draws: Sequence[int]
    rows: int | None = None
    layer_drop: bool = False
    seed: int = 0
    layers: dict[str, SparseDeltaLinear] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = sparse_layers(self.model)

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        """Draws in place, in the phase that follows the first draw: parameters stay the objects that they are."""
        done = self.draws[0] + step + 1
        if done not in self.draws:
            return
        with awake(model):
            tickets = self.tickets(done)
            now = {path: layer.waiting(ADAPTER)[layer.support(ADAPTER)] for path, layer in self.layers.items()}
        self.note("search", tickets)
        rewrites = {}
        for path, layer in self.layers.items():
            layer.put_waiting(ADAPTER, now[path])
            entries = layer.waiting(ADAPTER)[tickets[path]]
            rewrites[values_parameter(path)] = Rewrite(entries, origins(tickets[path], layer.support(ADAPTER)))
            layer.put_index(ADAPTER, tickets[path])
        self.trainer.rewrite(model, rewrites)

    def between(self, phase: str, done: int, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draws after a phase: the layers hold their tickets alone, what else was trained waits. The moments moved."""
        self.model.train()  # as the hook finds it: with dropout, where there is some
        with awake(self.model):
            tickets = self.tickets(done)
        self.note(phase, tickets)
        moved = dict(moments)
        for path, layer in self.layers.items():
            if ADAPTER in layer.sparse_delta_waiting:
                layer.put_waiting(ADAPTER, values_of(layer))
            else:
                layer.begin_waiting(ADAPTER)
            entries = layer.waiting(ADAPTER)[tickets[path]]
            rewrite = Rewrite(entries, origins(tickets[path], layer.support(ADAPTER)))
            moved = reindexed(moved, values_parameter(path), rewrite)
            layer.set_support(ADAPTER, tickets[path], entries)
        return moved

    def end(self) -> None:
        """Forgets what waited."""
        for layer in self.layers.values():
            layer.end_waiting(ADAPTER)

    def tickets(self, done: int) -> dict[str, Tensor]:
        """Each layer's next ticket after `done` steps, from the gradient on the batch of the last of them."""
        budgets = {path: self.budget(path) for path in self.layers}
        if self.score == "gd" and done == self.draws[0]:
            return {path: self.random(path, budget) for path, budget in budgets.items()}
        drawn: dict[str, Tensor] = {}

        def choose(path: str, gradient: Tensor) -> None:
            layer = self.layers[path]
            per_unit = gradient.flatten() if layer.unit_numel(ADAPTER) == 1 else as_tiles(gradient, self.config.block)
            if self.score == "gd":
                drawn[path] = self.regrown(layer, per_unit, done)
            elif self.layer_drop:
                drawn[path] = self.scored(layer, per_unit).cpu()  # all layers' at once: beside the model, not with it
            else:
                drawn[path] = top_k(self.scored(layer, per_unit), budgets[path])

        self.show_gradients(done, choose)
        in_order = {path: drawn[path] for path in self.layers}
        if not self.layer_drop:
            return in_order
        kept = kept_layers(in_order, budgets)
        tickets = {path: top_k(one, budgets[path] if path in kept else 0) for path, one in in_order.items()}
        return {path: ticket.to(values_of(self.layers[path]).device) for path, ticket in tickets.items()}

    def show_gradients(self, done: int, see: Callable[[str, Tensor], None]) -> None:
        """Calls `see` once for each layer."""
        seen = set()

        def once(path: str, gradient: Tensor) -> None:
            if path in seen:
                raise ValueError(f"{path} is used twice in a forward: its gradient comes in parts. Do not target it.")
            seen.add(path)
            see(path, gradient)

        self.trainer.dense_gradients(self.model, self.layers, once, phase=self.whole, step=done - 1, rows=self.rows)

    def scored(self, layer: SparseDeltaLinear, gradient: Tensor) -> Tensor:
        """(all_units,) the units' scores at W + What, from the gradient by units."""
        scores = score(self.score, self.config.scale * everywhere(layer).to(gradient.device), gradient)
        return scores.flatten(1).sum(dim=1) if scores.ndim > 1 else scores

    def regrown(self, layer: SparseDeltaLinear, gradient: Tensor, done: int) -> Tensor:
        """The ticket less its units of the smallest |value|, with others of the largest |gradient|."""
        support = layer.support(ADAPTER)
        keep = everywhere(layer)[support].abs().flatten(1 if gradient.ndim > 1 else 0)
        grow = gradient.abs().flatten(1 if gradient.ndim > 1 else 0)
        keep, grow = (one.sum(dim=1) if one.ndim > 1 else one for one in (keep, grow))
        share = (self.config.density or 0) * drop_fraction(done, self.total)
        return grow_and_drop(support, keep, grow, int(layer.all_units(ADAPTER) * share))

    def budget(self, path: str) -> int:
        """Units of the layer's ticket."""
        layer = self.layers[path]
        return units_of(self.config, path, layer.out_features, layer.in_features)

    def random(self, path: str, budget: int) -> Tensor:
        """A ticket of the seed and the layer's path."""
        layer = self.layers[path]
        drawn = random_units(self.seed, path, budget, layer.all_units(ADAPTER))
        return drawn.to(values_of(layer).device)

    def note(self, phase: str, tickets: Mapping[str, Tensor]) -> None:
        """Logs how many layers have a ticket, and its mean overlap with the one before (1 with a dense one)."""
        shares = [
            overlap(ticket, self.layers[path].support(ADAPTER)) for path, ticket in tickets.items() if len(ticket)
        ]
        self.trainer.note(phase, {"active_layers": float(len(shares)), "overlap": sum(shares) / len(shares)})


def everywhere(layer: SparseDeltaLinear) -> Tensor:
    """(all_units, ...) all values that the layer keeps: in or out of the ticket once there is one."""
    return layer.waiting(ADAPTER) if ADAPTER in layer.sparse_delta_waiting else values_of(layer)
