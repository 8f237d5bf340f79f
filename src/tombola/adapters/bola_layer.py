"""A linear layer with BoLA adapters on it."""

import warnings
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from tombola.adapters.adaptable import linear_shape
from tombola.adapters.bola_config import BolaConfig
from tombola.adapters.bola_leaves import BolaScores, BolaValues
from tombola.adapters.borrowing import may_borrow
from tombola.adapters.merging import Merge, add_blocks, put_back
from tombola.adapters.ops import bola_delta, selected_blocks
from tombola.adapters.whole import whole


class BolaLinear(nn.Module, BaseTunerLayer):
    """A frozen linear layer plus the deltas of its active adapters.

    Adapter `name` has its scores in `bola_scores[name].weight` (k, in_divs, out_divs) and its values in
    `bola_values[name].weight` (k, out / out_divs, in / in_divs); `bola_grid[name]` is its (in_divs, out_divs).
    """

    adapter_layer_names = ("bola_scores", "bola_values")
    other_param_names = ("bola_dropout", "bola_grid")

    def __init__(self, base_layer: nn.Module, name: str, config: BolaConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.out_features, self.in_features = linear_shape(base_layer, "to adapt")
        self.bola_grid: dict[str, tuple[int, int]] = {}
        self.bola_scores = nn.ModuleDict()
        self.bola_values = nn.ModuleDict()
        self.bola_dropout = nn.ModuleDict()
        self._disable_adapters = False
        self._active_adapter = name
        self.merged_adapters = []
        self._merges: list[Merge] = []
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

    def forward(self, x: Float[Tensor, "*batch in"], *args: Any, **kwargs: Any) -> Float[Tensor, "*batch out"]:
        """The base layer's output plus the active adapters'."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = [name for name in self.active_adapters if name in self.bola_values]
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x, *args, **kwargs)
        if not args and not kwargs and self._may_borrow_for(names):
            scores = self.bola_scores[names[0]]()
            return self.bola_values[names[0]](x, scores, self.base_layer.weight, self.base_layer.bias)
        result = self.base_layer(x, *args, **kwargs)
        for name in names:
            product = self.bola_values[name](self.bola_dropout[name](x), self.bola_scores[name]())
            result = result + product.to(result.dtype)
        return result

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

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Writes the deltas of the active (or named) adapters into the base weight, keeping what they overwrite.

        Raises ValueError for quantised and sharded weights and, with `safe_merge`, for a sum that is not finite.
        """
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.bola_values:
                continue
            cells = self.selected_blocks(name).unique()
            self._merges.append(
                add_blocks(
                    self.get_base_layer(),
                    self.get_delta_weight(name),
                    cells,
                    self.bola_grid[name],
                    name,
                    check=safe_merge,
                )
            )
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Puts the overwritten blocks back: the base weight is bit for bit what it was."""
        if not self.merged:
            warnings.warn("nothing is merged, so there is nothing to unmerge", stacklevel=2)
        while self._merges:
            put_back(self.get_base_layer(), self._merges.pop())
        self.merged_adapters.clear()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """True: the delta is added to the weight, so PEFT can factor it."""
        return True

    def _may_borrow_for(self, names: list[str]) -> bool:
        # Inference adds: it may come from several threads, and none must meet another's delta in the weight.
        if len(names) != 1 or not (self.training or torch.is_grad_enabled()):
            return False
        dropout = cast(nn.Dropout, self.bola_dropout[names[0]])
        return not (dropout.training and dropout.p > 0) and may_borrow(self.base_layer)

    def _leaves(self, name: str) -> tuple[BolaScores, BolaValues]:
        if name not in self.bola_values:
            raise ValueError(f"no adapter {name!r} on this layer; it has {', '.join(self.bola_values) or 'none'}")
        return cast(BolaScores, self.bola_scores[name]), cast(BolaValues, self.bola_values[name])

    def __repr__(self) -> str:
        return "bola." + super().__repr__()
