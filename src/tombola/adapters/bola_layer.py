"""A linear layer with BoLA adapters on it."""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tombola.adapters.bola_config import BolaConfig
from tombola.adapters.bola_leaves import BolaScores, BolaValues
from tombola.adapters.borrowing import may_borrow
from tombola.adapters.delta_layer import DeltaLinear
from tombola.adapters.ops import bola_delta, selected_blocks
from tombola.adapters.ops.lines import block_lines
from tombola.adapters.whole import whole


class BolaLinear(DeltaLinear):
    """A frozen linear layer plus the deltas of its active adapters.

    Adapter `name` has its scores in `bola_scores[name].weight` (k, in_divs, out_divs) and its values in
    `bola_values[name].weight` (k, out / out_divs, in / in_divs); `bola_grid[name]` is its (in_divs, out_divs).
    """

    adapter_layer_names = ("bola_scores", "bola_values")
    other_param_names = ("bola_dropout", "bola_grid")

    def __init__(self, base_layer: nn.Module, name: str, config: BolaConfig, grid: tuple[int, int]) -> None:
        super().__init__(base_layer, name)
        self.bola_grid: dict[str, tuple[int, int]] = {}
        self.bola_scores = nn.ModuleDict()
        self.bola_values = nn.ModuleDict()
        self.bola_dropout = nn.ModuleDict()
        self.update_layer(name, config, grid)

    def update_layer(self, name: str, config: BolaConfig, grid: tuple[int, int]) -> None:
        """Adds an adapter with random scores and zero values, so that the layer's output stays what it was."""
        n, m = self.bola_grid[name] = grid
        # Drawn on the CPU, so that a seed means the same on every device; a plan on the meta device draws nothing.
        weight = getattr(self.get_base_layer(), "weight", None)
        device = torch.device("meta" if weight is not None and weight.is_meta else "cpu")
        rows, columns = self.out_features // m, self.in_features // n
        self.bola_scores[name] = BolaScores(config.k, n, m, init_a=config.score_init_a, device=device)
        self.bola_values[name] = BolaValues(
            config.k, rows, columns, alpha=config.alpha, magnitude=config.magnitude, device=device
        )
        self.bola_dropout[name] = nn.Dropout(config.dropout)
        self._move_adapter_to_device_of_base_layer(name)

    def get_delta_weight(self, name: str) -> Float[Tensor, "out in"]:
        """The adapter's delta as a dense matrix, in the scores' dtype."""
        scores, values = self._leaves(name)
        with whole(scores.weight, values.weight, dims=3) as (s, v):
            return bola_delta(s, v, values.alpha, values.magnitude)

    @torch.no_grad()
    def selected_blocks(self, name: str) -> Int[Tensor, "k"]:
        """Cell `a * out_divs + b` that each candidate has drawn: stripe a of the columns, stripe b of the rows."""
        with whole(self._leaves(name)[0].weight, dims=3) as (scores,):
            return selected_blocks(scores)

    def unique_blocks(self, name: str) -> int:
        """Number of distinct blocks that the adapter's candidates have drawn."""
        return int(self.selected_blocks(name).unique().numel())

    def _may_borrow_for(self, names: list[str]) -> bool:
        # Inference adds: it may come from several threads, and none must meet another's delta in the weight.
        if len(names) != 1 or not (self.training or torch.is_grad_enabled()):
            return False
        dropout = cast(nn.Dropout, self.bola_dropout[names[0]])
        return not (dropout.training and dropout.p > 0) and may_borrow(self.base_layer)

    def _with_base(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return self.bola_values[name](x, self.bola_scores[name](), self.base_layer.weight, self.base_layer.bias)

    def _product(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return self.bola_values[name](self.bola_dropout[name](x), self.bola_scores[name]())

    def _changed_lines(self, name: str) -> tuple[Int[Tensor, "l"], int]:
        (n, m), cells = self.bola_grid[name], self.selected_blocks(name).unique()
        return block_lines(cells % m, cells // m, self.out_features // m, n), self.in_features // n

    def _leaves(self, name: str) -> tuple[BolaScores, BolaValues]:
        self._require(name)
        return cast(BolaScores, self.bola_scores[name]), cast(BolaValues, self.bola_values[name])

    def __repr__(self) -> str:
        return "bola." + super().__repr__()
