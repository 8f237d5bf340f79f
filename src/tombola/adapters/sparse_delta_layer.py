"""A linear layer with SparseDelta adapters on it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import torch
from jaxtyping import Float, Int
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from tombola.adapters.borrowing import may_borrow
from tombola.adapters.delta_layer import DeltaLinear
from tombola.adapters.ops import Support, scaled, scattered, sparse_additive, sparse_borrowed
from tombola.adapters.sparse_delta_config import SparseDeltaConfig
from tombola.adapters.sparse_delta_leaves import SparseGate, SparseValues
from tombola.adapters.sparse_delta_start import random_units, start_values
from tombola.adapters.whole import whole
from tombola.adapters.wide import WideBuffers, at_least_float32


class SparseDeltaLinear(DeltaLinear):
    """A frozen linear layer plus scale * gate * values at chosen coordinates, for each active adapter.

    Adapter `name` has its values in `sparse_delta_values[name].weight`, (units,) or (units, block, block); the numbers
    of its units, ascending, in the int32 buffer `sparse_delta_index[name]`, which is empty for a full support; and a
    gated one its factor in `sparse_delta_gate[name].weight`, (1,).
    """

    adapter_layer_names = ("sparse_delta_values", "sparse_delta_gate")
    other_param_names = ("sparse_delta_index", "sparse_delta_units", "sparse_delta_origin")

    def __init__(
        self, base_layer: nn.Module, name: str, config: SparseDeltaConfig, path: str, units: int, *, empty: bool
    ) -> None:
        super().__init__(base_layer, name)
        self.sparse_delta_values = nn.ModuleDict()
        self.sparse_delta_gate = nn.ModuleDict()
        self.sparse_delta_index = BufferDict(persistent=True)
        self.sparse_delta_waiting = WideBuffers(persistent=True)
        self.sparse_delta_units: dict[str, int] = {}
        self.sparse_delta_origin: dict[str, tuple[SparseDeltaConfig, str]] = {}
        self._awake: str | None = None
        self.update_layer(name, config, path, units, empty=empty)

    def update_layer(self, name: str, config: SparseDeltaConfig, path: str, units: int, *, empty: bool) -> None:
        """Adds an adapter, drawn from the config's seed and the layer's path.

        `empty` leaves the values on the meta device, for a saved adapter's to be put there.
        """
        self.sparse_delta_origin[name] = (config, path)
        self.sparse_delta_units[name] = units
        weight = getattr(self.get_base_layer(), "weight", None)
        planned = weight is not None and weight.is_meta
        empty = empty or planned
        device = torch.device("meta" if empty else "cpu")
        full = units == self.all_units(name)
        # PEFT moves buffers before a saved adapter's numbers are put in: only a plan may have them on the meta device.
        index = torch.arange(0 if full else units, device="meta" if planned else "cpu")
        draws = not empty and not config.inference_mode  # it takes seconds, and a loaded adapter brings its own
        if draws and not full:
            index = random_units(config.seed, path, units, self.all_units(name))
        values = torch.zeros(units, *self._tile(name), device=device)
        if draws and config.delta_init != "zeros":
            values = self.start_values(name) if full else self.start_values(name)[index]
        values = values.to(torch.bfloat16 if config.values_dtype == "bfloat16" else torch.float32)
        self.sparse_delta_values[name] = SparseValues(values, scale=config.scale)
        if config.gate:
            self.sparse_delta_gate[name] = SparseGate(config.gate_init, device=device)
        self.sparse_delta_index[name] = index.to(torch.int32)
        self._move_adapter_to_device_of_base_layer(name)

    def names(self) -> list[str]:
        """The adapters on this layer."""
        return list(self.sparse_delta_origin)

    def get_delta_weight(self, name: str) -> Float[Tensor, "out in"]:
        """The adapter's delta as a dense matrix, in the values' dtype but float32 at least."""
        scale, support = self._values(name).scale, self._support(name)
        with self._whole_values(name) as (values,):
            if name not in self.sparse_delta_gate:
                return scattered(scaled(at_least_float32(values), None, scale), support)
            with whole(cast(SparseGate, self.sparse_delta_gate[name]).weight, dims=1, numel=1) as (gate,):
                return scattered(scaled(values, at_least_float32(gate), scale), support)

    def dense_values(self, name: str) -> Float[Tensor, "out in"]:
        """The values as a dense matrix, without scale and gate, detached."""
        with self._whole_values(name) as (values,):
            return scattered(values.detach(), self._support(name))

    @torch.no_grad()
    def support(self, name: str) -> Int[Tensor, "units"]:
        """Numbers of the support's units, ascending; int64."""
        support = self._support(name)
        if support.index is None:
            return torch.arange(self.all_units(name), device=self._values(name).weight.device)
        return support.index.long()

    def all_units(self, name: str) -> int:
        """Units of the full support."""
        return self.out_features * self.in_features // self.unit_numel(name)

    def unit_numel(self, name: str) -> int:
        """Numbers in a unit: 1, or block * block."""
        return self._block(name) ** 2

    def count(self, name: str) -> int:
        """The adapter's trained numbers on this layer, without the gate."""
        self._require(name)
        return self.sparse_delta_units[name] * self.unit_numel(name)

    def path(self, name: str) -> str:
        """The layer's path in the base model that the adapter was put on."""
        self._require(name)
        return self.sparse_delta_origin[name][1]

    @torch.no_grad()
    def set_support(self, name: str, index: Int[Tensor, "units"], values: Float[Tensor, "units *tile"]) -> None:
        """Puts the adapter on other units, with these values, between phases: the parameter is a new one.

        Raises ValueError unless the units are ascending and unique, and the values are of their shape.
        """
        self._check_units(name, index)
        expected = (index.numel(), *self._tile(name))
        if tuple(values.shape) != expected:
            raise ValueError(f"values of the shape {tuple(values.shape)} for a support that needs {expected}")
        leaf = self._values(name)
        old, full = leaf.weight, index.numel() == self.all_units(name)
        leaf.weight = nn.Parameter(values.detach().to(old, copy=True), requires_grad=old.requires_grad)
        self.sparse_delta_units[name] = index.numel()
        self.sparse_delta_index[name] = index[: 0 if full else None].to(old.device, torch.int32)

    @torch.no_grad()
    def put_index(self, name: str, index: Int[Tensor, "units"]) -> None:
        """Moves the adapter to as many other units, in place: the values stay where they are in their parameter.

        Raises ValueError unless the units are ascending, unique, and as many as before.
        """
        self._check_units(name, index)
        if index.numel() != self.sparse_delta_units[name]:
            raise ValueError(
                f"{index.numel()} units for a support of {self.sparse_delta_units[name]}: set_support changes their "
                "number, between phases"
            )
        if index.numel() != self.all_units(name):
            self.sparse_delta_index[name].copy_(index)

    def start_values(self, name: str) -> Float[Tensor, "all_units *tile"]:
        """The full support's values at the start, drawn again; float32, on the CPU."""
        self._require(name)
        config, path = self.sparse_delta_origin[name]
        shape = (self.all_units(name), *self._tile(name))
        return start_values(config.delta_init, config.seed, path, self.in_features, shape)

    @torch.no_grad()
    def begin_waiting(self, name: str) -> None:
        """Keeps the present delta's values, dense, beside the trained ones."""
        with self._whole_values(name) as (values,):
            waiting = values.new_zeros(self.all_units(name), *self._tile(name))
            waiting[self.support(name)] = values
        self.sparse_delta_waiting[name] = waiting

    @torch.no_grad()
    def put_waiting(self, name: str, values_now: Float[Tensor, "units *tile"]) -> None:
        """Writes values, at the present support, into the waiting ones."""
        waiting = self.waiting(name)
        waiting[self.support(name)] = values_now.detach().to(waiting)

    def waiting(self, name: str) -> Float[Tensor, "all_units *tile"]:
        """The waiting values. Raises ValueError where there are none."""
        if name not in self.sparse_delta_waiting:
            raise ValueError(f"the adapter {name!r} has no waiting values on this layer: begin_waiting makes them")
        return cast(Tensor, self.sparse_delta_waiting[name])

    def end_waiting(self, name: str) -> None:
        """Drops the waiting values, if there are any."""
        if name in self.sparse_delta_waiting:
            del self.sparse_delta_waiting[name]

    def delete_adapter(self, adapter_name: str) -> None:
        """As PEFT's, with the waiting values."""
        # Not among `other_param_names`, whose entries PEFT casts to the base layer's dtype when it moves them.
        self.end_waiting(adapter_name)
        super().delete_adapter(adapter_name)

    @contextmanager
    def awake(self, name: str) -> Iterator[None]:
        """Inside, the delta is the waiting values overwritten by the present ones; its parameters get no gradient."""
        waiting, units = self.waiting(name), self.support(name)
        asleep = waiting[units]
        with self._whole_values(name) as (values,):
            self.put_waiting(name, values)
        self._awake = name
        try:
            yield
        finally:
            self._awake = None
            waiting[units] = asleep

    def _may_borrow_for(self, names: list[str]) -> bool:
        # Inference adds: it may come from several threads, and none must meet another's delta in the weight.
        alone = len(names) == 1 and (self.training or torch.is_grad_enabled())
        return alone and may_borrow(self.base_layer)

    def _with_base(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        weight, bias, gate = self.base_layer.weight, self.base_layer.bias, self._lent_gate(name)
        if self._awake == name:
            everywhere = self._support(name)._replace(index=None)
            return sparse_borrowed(x, weight, bias, self.waiting(name), gate, everywhere, self._values(name).scale)
        return self.sparse_delta_values[name](x, self._support(name), gate, weight, bias)

    def _product(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        gate = self._lent_gate(name)
        if self._awake == name:
            everywhere = self._support(name)._replace(index=None)
            return sparse_additive(x, self.waiting(name), gate, everywhere, self._values(name).scale)
        return self.sparse_delta_values[name](x, self._support(name), gate)

    def _changed_lines(self, name: str) -> tuple[Int[Tensor, "l"], int]:
        support = self._support(name)
        if support.index is None:
            return torch.arange(self.out_features, device=self._values(name).weight.device), self.in_features
        return support.lines(), support.block

    def _support(self, name: str) -> Support:
        full = self.sparse_delta_units[name] == self.all_units(name)
        index = None if full else cast(Tensor, self.sparse_delta_index[name])
        return Support(index, (self.out_features, self.in_features), self._block(name))

    def _block(self, name: str) -> int:
        self._require(name)
        return self.sparse_delta_origin[name][0].tile

    def _tile(self, name: str) -> tuple[int, ...]:
        block = self.sparse_delta_origin[name][0].tile
        return () if block == 1 else (block, block)

    def _values(self, name: str) -> SparseValues:
        self._require(name)
        return cast(SparseValues, self.sparse_delta_values[name])

    def _whole_values(self, name: str) -> AbstractContextManager[tuple[Tensor, ...]]:
        dims = 1 + len(self._tile(name))
        return whole(self._values(name).weight, dims=dims, numel=self.count(name))

    def _lent_gate(self, name: str) -> Float[Tensor, "1"] | None:
        if name not in self.sparse_delta_gate:
            return None
        gate = cast(Tensor, self.sparse_delta_gate[name]())
        return at_least_float32(gate.detach() if self._awake == name else gate)

    def _check_units(self, name: str, index: Int[Tensor, "units"]) -> None:
        size = self.all_units(name)
        if name in self.merged_adapters:
            raise ValueError(f"the adapter {name!r} is merged into its layer: unmerge before its support changes")
        if index.dim() != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(f"a support is a vector of unit numbers, not {index.dtype} of {tuple(index.shape)}")
        ascending = bool((index[1:] > index[:-1]).all())
        if not ascending or (index.numel() and not 0 <= int(index[0]) <= int(index[-1]) < size):
            raise ValueError(f"the units of a support must be ascending, each once, and between 0 and {size - 1}")

    def __repr__(self) -> str:
        return "sparse_delta." + super().__repr__()
