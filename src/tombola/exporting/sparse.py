"""Which adapters have a sparse delta."""

from __future__ import annotations

from typing import Protocol, cast

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from tombola.adapters import BolaLinear, RosaLinear, SparseDeltaLinear
from tombola.exporting.stock import ADAPTER


class SparseLayer(Protocol):
    """A tuner layer whose delta is zero at most places."""

    def get_delta_weight(self, name: str) -> Tensor:
        """The (out, in) delta."""
        ...


def sparse_layers_of(model: PeftModel, method: str) -> dict[str, SparseLayer]:
    """The adapted layers by their path in the base model. Raises ValueError where a delta is dense."""
    net = model.get_base_model()
    layers = {path: module for path, module in net.named_modules() if isinstance(module, BaseTunerLayer)}
    if not all(_is_sparse(layer) for layer in layers.values()):
        raise ValueError(
            f"{method}'s delta is dense, and format=shira holds single entries: take format=merged or format=native, "
            "for LoRA and its masked and partitioned kinds format=lora"
        )
    return {path: cast(SparseLayer, layer) for path, layer in layers.items()}


def _is_sparse(layer: BaseTunerLayer) -> bool:
    if isinstance(layer, RosaLinear):
        return ADAPTER not in layer.rosa_a
    return isinstance(layer, BolaLinear | SparseDeltaLinear)
