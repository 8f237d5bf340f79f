"""A linear layer with LoRA-Dash adapters on it."""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tombola.adapters.delta_layer import DeltaLinear
from tombola.adapters.lora_dash_config import LoraDashConfig
from tombola.adapters.lora_dash_leaves import Directions
from tombola.adapters.rosa_leaves import lora_factors
from tombola.adapters.whole import whole
from tombola.tickets import task_directions


class LoraDashLinear(DeltaLinear):
    """A frozen linear layer plus, for each active adapter, a low-rank delta and one along directions of the weight.

    Adapter `name` has its factors in `lora_dash_a[name].weight` (r, in) and `lora_dash_b[name].weight` (out, r), and in
    `lora_dash_c[name]` the numbers `weight` (n,) and the buffers `u` (out, n) and `v` (n, in).
    """

    adapter_layer_names = ("lora_dash_a", "lora_dash_b", "lora_dash_c")
    other_param_names = ("lora_dash_dropout", "lora_dash_settings")

    def __init__(self, base_layer: nn.Module, name: str, config: LoraDashConfig) -> None:
        super().__init__(base_layer, name)
        self.lora_dash_a = nn.ModuleDict()
        self.lora_dash_b = nn.ModuleDict()
        self.lora_dash_c = nn.ModuleDict()
        self.lora_dash_dropout = nn.ModuleDict()
        self.lora_dash_settings: dict[str, LoraDashConfig] = {}
        self.update_layer(name, config)

    def update_layer(self, name: str, config: LoraDashConfig) -> None:
        """Adds an adapter whose delta is zero: B, c and the directions are."""
        # Drawn on the CPU, so that a seed means the same on every device; a plan on the meta device draws nothing.
        weight = getattr(self.get_base_layer(), "weight", None)
        device = torch.device("meta" if weight is not None and weight.is_meta else "cpu")
        self.lora_dash_settings[name] = config
        self.lora_dash_dropout[name] = nn.Dropout(config.lora_dropout)
        factors = lora_factors(config.r, self.out_features, self.in_features, device)
        self.lora_dash_a[name], self.lora_dash_b[name] = factors
        directions = Directions(config.directions, self.out_features, self.in_features, device=device)
        self.lora_dash_c[name] = directions
        self._move_adapter_to_device_of_base_layer(name)

    @torch.no_grad()
    def choose_directions(self, name: str) -> None:
        """Puts the directions at those of the weight that the low-rank part changes most for their size; c stays."""
        self._require(name)
        found = self.directions(name)
        with whole(self.get_base_weight(), *self._factors(name), dims=2) as (weight, a, b):
            u, v = task_directions(weight, self._scale(name) * b, a, len(found.v))
        found.u.copy_(u)
        found.v.copy_(v)

    def directions(self, name: str) -> Directions:
        """The adapter's directions, with its c."""
        return cast(Directions, self.lora_dash_c[name])

    def get_delta_weight(self, name: str) -> Float[Tensor, "out in"]:
        """The adapter's delta as a dense matrix, in its parameters' dtype."""
        self._require(name)
        along = self.directions(name)
        with whole(*self._factors(name), dims=2) as (a, b), whole(along.weight, dims=1, numel=len(along.v)) as (c,):
            return self._scale(name) * (b @ a) + (along.u * c) @ along.v

    def _product(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        x = self.lora_dash_dropout[name](x)
        low_rank = self.lora_dash_b[name](self.lora_dash_a[name](x)) * self._scale(name)
        return low_rank + self.lora_dash_c[name](x)

    def _may_borrow_for(self, names: list[str]) -> bool:
        return False

    def _changed_lines(self, name: str) -> tuple[Int[Tensor, "l"], int]:
        return torch.arange(self.out_features, device=self.directions(name).u.device), self.in_features

    def _factors(self, name: str) -> tuple[Tensor, Tensor]:
        return cast(Tensor, self.lora_dash_a[name].weight), cast(Tensor, self.lora_dash_b[name].weight)

    def _scale(self, name: str) -> float:
        config = self.lora_dash_settings[name]
        return config.lora_alpha / config.r

    def __repr__(self) -> str:
        return "lora_dash." + super().__repr__()
