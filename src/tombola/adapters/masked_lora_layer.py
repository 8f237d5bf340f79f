"""A linear layer with masked LoRA adapters on it."""

from typing import cast

import torch
from jaxtyping import Float, Int
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from tombola.adapters.borrowing import may_borrow
from tombola.adapters.delta_layer import DeltaLinear
from tombola.adapters.low_rank import LowRank
from tombola.adapters.masked_lora_config import MaskedLoraConfig
from tombola.adapters.masked_lora_leaves import MaskedA, MaskedB
from tombola.adapters.masked_lora_start import masked_kept, masked_start
from tombola.adapters.ops import Kept, spread
from tombola.adapters.whole import whole
from tombola.adapters.wide import at_least_float32


class MaskedLoraLinear(DeltaLinear):
    """A frozen linear layer plus lora_alpha / r * B A, of whose factors only a part is there, for each active adapter.

    Adapter `name` has what is kept of A in `masked_lora_a[name].weight`, (r, kept) columns or (kept,) entries; of B in
    `masked_lora_b[name].weight`, (kept, r) rows or (kept,) entries; and the numbers of those columns, rows or entries
    (row by row), ascending, in the int32 buffers `masked_lora_kept_a[name]` and `masked_lora_kept_b[name]`.
    """

    adapter_layer_names = ("masked_lora_a", "masked_lora_b")
    other_param_names = ("masked_lora_kept_a", "masked_lora_kept_b", "masked_lora_dropout", "masked_lora_settings")

    def __init__(self, base_layer: nn.Module, name: str, config: MaskedLoraConfig, path: str) -> None:
        super().__init__(base_layer, name)
        self.masked_lora_a = nn.ModuleDict()
        self.masked_lora_b = nn.ModuleDict()
        self.masked_lora_kept_a = BufferDict(persistent=True)
        self.masked_lora_kept_b = BufferDict(persistent=True)
        self.masked_lora_dropout = nn.ModuleDict()
        self.masked_lora_settings: dict[str, MaskedLoraConfig] = {}
        self.update_layer(name, config, path)

    def update_layer(self, name: str, config: MaskedLoraConfig, path: str) -> None:
        """Adds an adapter whose delta is zero: B is."""
        # Drawn on the CPU, so that a seed means the same on every device; a plan on the meta device draws nothing.
        weight = getattr(self.get_base_layer(), "weight", None)
        device = torch.device("meta" if weight is not None and weight.is_meta else "cpu")
        start = masked_start(config, path, self.out_features, self.in_features, device)
        self.masked_lora_settings[name] = config
        self.masked_lora_dropout[name] = nn.Dropout(config.lora_dropout)
        self.masked_lora_a[name] = MaskedA(start.a)
        self.masked_lora_b[name] = MaskedB(start.b, scale=config.lora_alpha / config.r)
        self.masked_lora_kept_a[name] = start.columns.to(torch.int32)
        self.masked_lora_kept_b[name] = start.rows.to(torch.int32)
        self._move_adapter_to_device_of_base_layer(name)

    @torch.no_grad()
    def kept(self, name: str) -> tuple[Int[Tensor, "kept_b"], Int[Tensor, "kept_a"]]:
        """What is kept, ascending: rows of B and columns of A, or entries of each; int64."""
        self._require(name)
        return self.masked_lora_kept_b[name].long(), self.masked_lora_kept_a[name].long()

    @torch.no_grad()
    def low_rank(self, name: str) -> LowRank:
        """The whole factors, zero where nothing is kept, and LoRA's alpha; copies, detached."""
        self._require(name)
        kept_a, kept_b = self._kept(name)
        config = self.masked_lora_settings[name]
        dims = 1 if config.granularity == "element" else 2
        with (
            whole(self._a(name).weight, dims=dims, numel=kept_a.numel()) as (a,),
            whole(self._b(name).weight, dims=dims, numel=kept_b.numel()) as (b,),
        ):
            whole_a, whole_b = (spread(at_least_float32(one), kept) for one, kept in ((a, kept_a), (b, kept_b)))
            return LowRank(whole_a.clone(), whole_b.clone(), config.lora_alpha)

    def get_delta_weight(self, name: str) -> Float[Tensor, "out in"]:
        """The adapter's delta as a dense matrix, in its parameters' dtype but float32 at least; detached."""
        factors = self.low_rank(name)
        return self._b(name).scale * (factors.b @ factors.a)

    def _may_borrow_for(self, names: list[str]) -> bool:
        # The weight is only read, so any thread may come; dropout makes the adapter's input another than the base's.
        if len(names) != 1 or not may_borrow(self.base_layer):
            return False
        dropped = self.training and self.masked_lora_settings[names[0]].lora_dropout > 0
        device = cast(Tensor, self.base_layer.weight).device.type
        return not dropped and not torch.is_autocast_enabled(device)

    def _with_base(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        base = (self.base_layer.weight, self.base_layer.bias)
        return self.masked_lora_b[name](x, self.masked_lora_a[name](), *self._kept(name), base)

    def _product(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        a = self.masked_lora_a[name]()
        return self.masked_lora_b[name](self.masked_lora_dropout[name](x), a, *self._kept(name))

    def _changed_lines(self, name: str) -> tuple[Int[Tensor, "l"], int]:
        return self._kept(name)[1].rows(self.masked_lora_kept_b[name].device), self.in_features

    def _kept(self, name: str) -> tuple[Kept, Kept]:
        config = self.masked_lora_settings[name]
        columns, rows = self.masked_lora_kept_a[name], self.masked_lora_kept_b[name]
        return masked_kept(config, columns, rows, self.out_features, self.in_features)

    def _a(self, name: str) -> MaskedA:
        return cast(MaskedA, self.masked_lora_a[name])

    def _b(self, name: str) -> MaskedB:
        return cast(MaskedB, self.masked_lora_b[name])

    def __repr__(self) -> str:
        return "masked_lora." + super().__repr__()
