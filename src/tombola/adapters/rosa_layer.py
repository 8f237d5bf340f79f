"""A linear layer with RoSA adapters on it."""

from typing import cast

import torch
from jaxtyping import Float, Int
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from tombola.adapters.borrowing import may_borrow
from tombola.adapters.delta_layer import DeltaLinear
from tombola.adapters.ops import Support, scaled, scattered
from tombola.adapters.rosa_config import RosaConfig
from tombola.adapters.rosa_leaves import lora_factors
from tombola.adapters.sparse_delta_leaves import SparseValues
from tombola.adapters.sparse_delta_start import random_units
from tombola.adapters.whole import whole


class RosaLinear(DeltaLinear):
    """A frozen linear layer plus a low-rank and a sparse delta for each active adapter.

    Adapter `name` has its factors in `rosa_a[name].weight` (r, in) and `rosa_b[name].weight` (out, r), its values in
    `rosa_values[name].weight` (count,) and the numbers row * in + column of their entries, ascending, in the int32
    buffer `rosa_index[name]`; a part that is empty has none of these.
    """

    adapter_layer_names = ("rosa_a", "rosa_b", "rosa_values")
    other_param_names = ("rosa_index", "rosa_dropout", "rosa_settings")

    def __init__(self, base_layer: nn.Module, name: str, config: RosaConfig, path: str, count: int) -> None:
        super().__init__(base_layer, name)
        self.rosa_a = nn.ModuleDict()
        self.rosa_b = nn.ModuleDict()
        self.rosa_values = nn.ModuleDict()
        self.rosa_index = BufferDict(persistent=True)
        self.rosa_dropout = nn.ModuleDict()
        self.rosa_settings: dict[str, RosaConfig] = {}
        self.update_layer(name, config, path, count)

    def update_layer(self, name: str, config: RosaConfig, path: str, count: int) -> None:
        """Adds an adapter whose delta is zero: B and the values are; the entries are drawn."""
        # Drawn on the CPU, so that a seed means the same on every device; a plan on the meta device draws nothing.
        weight = getattr(self.get_base_layer(), "weight", None)
        device = torch.device("meta" if weight is not None and weight.is_meta else "cpu")
        self.rosa_settings[name] = config
        self.rosa_dropout[name] = nn.Dropout(config.lora_dropout)
        if config.r:
            self.rosa_a[name], self.rosa_b[name] = lora_factors(config.r, self.out_features, self.in_features, device)
        if count:
            index = torch.empty(count, dtype=torch.int64, device=device)
            if not index.is_meta:
                index = random_units(config.seed, path, count, self.all_units)
            self._put_sparse(name, index, torch.zeros(count, device=device))
        self._move_adapter_to_device_of_base_layer(name)

    @property
    def all_units(self) -> int:
        """Entries of the weight."""
        return self.out_features * self.in_features

    def names(self) -> list[str]:
        """The adapters on this layer."""
        return list(self.rosa_settings)

    @torch.no_grad()
    def support(self, name: str) -> Int[Tensor, "count"]:
        """The entries of the sparse part, row * in + column, ascending; int64."""
        self._require(name)
        if name not in self.rosa_index:
            return torch.empty(0, dtype=torch.int64, device=self._device())
        return self.rosa_index[name].long()

    @torch.no_grad()
    def set_support(self, name: str, index: Int[Tensor, "count"]) -> None:
        """Between phases: a sparse part at other entries, its values a new parameter of zeros.

        Raises ValueError unless the entries are ascending, distinct and in the weight.
        """
        self._require(name)
        inside = index.numel() == 0 or (int(index[0]) >= 0 and int(index[-1]) < self.all_units)
        if index.dim() != 1 or not inside or not bool((index[1:] > index[:-1]).all()):
            raise ValueError(
                f"a support is ascending, distinct numbers of entries below {self.all_units}: sort it first"
            )
        for part in (self.rosa_values, self.rosa_index):
            if name in part:
                del part[name]
        if index.numel():
            index = index.to(self._device())
            self._put_sparse(name, index, torch.zeros(index.numel(), device=index.device))
            self.rosa_values[name].requires_grad_(name in self.active_adapters)

    def get_delta_weight(self, name: str) -> Float[Tensor, "out in"]:
        """The adapter's delta as a dense matrix, in its parameters' dtype."""
        self._require(name)
        delta = torch.zeros(self.out_features, self.in_features, device=self._device())
        if name in self.rosa_a:
            with whole(_weight(self.rosa_a[name]), _weight(self.rosa_b[name]), dims=2) as (a, b):
                delta = delta + self._lora_scale(name) * (b @ a)
        if name in self.rosa_values:
            with whole(_weight(self.rosa_values[name]), dims=1, numel=self.rosa_index[name].numel()) as (values,):
                delta = delta + scattered(
                    scaled(values, None, self.rosa_settings[name].sparse_scale), self._support(name)
                )
        return delta

    def _may_borrow_for(self, names: list[str]) -> bool:
        # Inference adds: it may come from several threads, and none must meet another's delta in the weight.
        if len(names) != 1 or names[0] not in self.rosa_values or not (self.training or torch.is_grad_enabled()):
            return False
        return may_borrow(self.base_layer)

    def _with_base(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        base = cast(nn.Linear, self.base_layer)
        result = self.rosa_values[name](x, self._support(name), None, base.weight, base.bias)
        low_rank = self._low_rank(name, x)
        return result if low_rank is None else result + low_rank.to(result.dtype)

    def _product(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        low_rank = self._low_rank(name, x)
        if name not in self.rosa_values:
            return x.new_zeros(*x.shape[:-1], self.out_features) if low_rank is None else low_rank
        sparse = self.rosa_values[name](x, self._support(name))
        return sparse if low_rank is None else low_rank + sparse

    def _low_rank(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"] | None:
        if name not in self.rosa_a:
            return None
        return self.rosa_b[name](self.rosa_a[name](self.rosa_dropout[name](x))) * self._lora_scale(name)

    def _device(self) -> torch.device:
        return _weight(self.get_base_layer()).device

    def _lora_scale(self, name: str) -> float:
        config = self.rosa_settings[name]
        return config.lora_alpha / config.r

    def _changed_lines(self, name: str) -> tuple[Int[Tensor, "l"], int]:
        if name in self.rosa_a:
            return torch.arange(self.out_features, device=self._device()), self.in_features
        return self.support(name), 1

    def _support(self, name: str) -> Support:
        return Support(self.rosa_index[name], (self.out_features, self.in_features), 1)

    def _put_sparse(self, name: str, index: Int[Tensor, "count"], values: Float[Tensor, "count"]) -> None:
        self.rosa_values[name] = SparseValues(values, scale=self.rosa_settings[name].sparse_scale)
        self.rosa_index[name] = index.to(values.device, torch.int32)

    def __repr__(self) -> str:
        return "rosa." + super().__repr__()


def _weight(module: nn.Module) -> Tensor:
    return cast(Tensor, module.weight)
