"""A linear layer with partitioned LoRA adapters on it."""

from typing import cast

import torch
from jaxtyping import Float, Int
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from tombola.adapters.borrowing import may_borrow
from tombola.adapters.delta_layer import DeltaLinear
from tombola.adapters.kept import kept_places
from tombola.adapters.low_rank import LowRank
from tombola.adapters.ops import Factors, Partition, joined_a, joined_b, partitioned_lora, scale_ranks_
from tombola.adapters.partitioned_lora_config import PartitionedLoraConfig
from tombola.adapters.partitioned_lora_leaves import GroupFactor, group_factors
from tombola.adapters.whole import whole


class PartitionedLoraLinear(DeltaLinear):
    """A frozen linear layer plus, for each active adapter, low-rank deltas of two ranks in two groups of its rows.

    Adapter `name` has the numbers of its dominant rows, ascending, in the int64 buffer `partitioned_lora_rows[name]`,
    those of the other rows in `partitioned_lora_minor_rows[name]`; the dominant rows' factors in
    `partitioned_lora_a[name].weight` (r, in) and `partitioned_lora_b[name].weight` (rows, r); and the other rows' in
    `partitioned_lora_minor_a` and `partitioned_lora_minor_b`, where there are any and r_minor is not 0.
    """

    adapter_layer_names = (
        "partitioned_lora_a", "partitioned_lora_b", "partitioned_lora_minor_a", "partitioned_lora_minor_b",
    )  # fmt: skip
    other_param_names = (
        "partitioned_lora_rows", "partitioned_lora_minor_rows", "partitioned_lora_dropout", "partitioned_lora_settings",
    )  # fmt: skip

    def __init__(self, base_layer: nn.Module, name: str, config: PartitionedLoraConfig, path: str, rows: int) -> None:
        super().__init__(base_layer, name)
        self.partitioned_lora_a = nn.ModuleDict()
        self.partitioned_lora_b = nn.ModuleDict()
        self.partitioned_lora_minor_a = nn.ModuleDict()
        self.partitioned_lora_minor_b = nn.ModuleDict()
        self.partitioned_lora_rows = BufferDict(persistent=True)
        self.partitioned_lora_minor_rows = BufferDict(persistent=True)
        self.partitioned_lora_dropout = nn.ModuleDict()
        self.partitioned_lora_settings: dict[str, PartitionedLoraConfig] = {}
        self.update_layer(name, config, path, rows)

    def update_layer(self, name: str, config: PartitionedLoraConfig, path: str, rows: int) -> None:
        """Adds an adapter with so many dominant rows; its delta is zero: A is drawn as PEFT's LoRA does, B is zero."""
        # Drawn on the CPU, so that a seed means the same on every device; a plan on the meta device draws nothing.
        weight = getattr(self.get_base_layer(), "weight", None)
        device = torch.device("meta" if weight is not None and weight.is_meta else "cpu")
        self.partitioned_lora_settings[name] = config
        self.partitioned_lora_dropout[name] = nn.Dropout(config.lora_dropout)
        a, b = group_factors(rows, config.r, self.in_features, device)
        self.partitioned_lora_a[name], self.partitioned_lora_b[name] = a, b
        if config.r_minor and rows < self.out_features:
            a, b = group_factors(self.out_features - rows, config.r_minor, self.in_features, device)
            self.partitioned_lora_minor_a[name], self.partitioned_lora_minor_b[name] = a, b
        is_dominant = torch.zeros(self.out_features, dtype=torch.bool)
        is_dominant[kept_places("dominant", config.dominant, path, self.out_features, config.seed)] = True
        for buffers, chosen in (
            (self.partitioned_lora_rows, is_dominant),
            (self.partitioned_lora_minor_rows, ~is_dominant),
        ):
            buffers[name] = chosen.nonzero()[:, 0].to(device)
        self._move_adapter_to_device_of_base_layer(name)

    def names(self) -> list[str]:
        """The adapters on this layer."""
        return list(self.partitioned_lora_settings)

    @torch.no_grad()
    def dominant(self, name: str) -> Int[Tensor, "rows"]:
        """The adapter's dominant rows, ascending; int64."""
        return self._partition(name).rows

    def get_delta_weight(self, name: str) -> Float[Tensor, "out in"]:
        """The adapter's delta as a dense matrix, in its parameters' dtype."""
        a, b = self._joined(name)
        return b @ a

    @torch.no_grad()
    def low_rank(self, name: str) -> LowRank:
        """The same delta as a plain LoRA's: of rank r + r_minor, which its alpha is too, so that its scale is 1.

        What a layer has not of the minor group is zero there, so that all layers have one rank.
        """
        a, b = self._joined(name)
        config = self.partitioned_lora_settings[name]
        rank = config.r + config.r_minor
        missing = rank - len(a)
        return LowRank(nn.functional.pad(a, (0, 0, 0, missing)), nn.functional.pad(b, (0, missing)), rank)

    def _joined(self, name: str) -> tuple[Float[Tensor, "R in"], Float[Tensor, "out R"]]:
        partition = self._partition(name)
        with whole(*(leaf.weight for leaf in self._leaves(name)), dims=2) as weights:
            factors = Factors(*weights)
            a = scale_ranks_(joined_a(factors), len(factors.a), partition.scales)
            return a, joined_b(factors, partition).clone()

    def _may_borrow_for(self, names: list[str]) -> bool:
        # The weight is read and not written: inference may come from several threads.
        drops = self.training and self.partitioned_lora_settings[names[0]].lora_dropout > 0
        return len(names) == 1 and not drops and may_borrow(self.base_layer)

    def _with_base(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        base = cast(nn.Linear, self.base_layer)
        return partitioned_lora(x, self._lent(name), self._partition(name), base.weight, base.bias)

    def _product(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return partitioned_lora(self.partitioned_lora_dropout[name](x), self._lent(name), self._partition(name))

    def _lent(self, name: str) -> Factors:
        return Factors(*(leaf() for leaf in self._leaves(name)))

    def _leaves(self, name: str) -> list[GroupFactor]:
        """The adapter's two or four factors, in the order of `Factors`."""
        # Not by attribute, which torch looks up in Python: 0.7 in the place of 3.5 us a layer.
        parts = [cast(nn.ModuleDict, self._modules[part])._modules for part in self.adapter_layer_names]
        return [cast(GroupFactor, part[name]) for part in parts if name in part]

    def _partition(self, name: str) -> Partition:
        self._require(name)
        rows, others = self.partitioned_lora_rows[name], self.partitioned_lora_minor_rows[name]
        return Partition(rows, others, self.partitioned_lora_settings[name].scales)

    def _changed_lines(self, name: str) -> tuple[Int[Tensor, "l"], int]:
        dominant = self.dominant(name)
        if name not in self.partitioned_lora_minor_a:
            return dominant, self.in_features
        return torch.arange(self.out_features, device=dominant.device), self.in_features

    def __repr__(self) -> str:
        return "partitioned_lora." + super().__repr__()
