"""What every method of the SparseDelta tuner shares: the adapter is saved compact, whatever it was while it trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from peft import PeftModel
from torch import Tensor, nn

from tombola.adapters import SparseDeltaConfig, SparseDeltaLinear, write_counts
from tombola.methods.attach import attach
from tombola.methods.portable import save_adapter

if TYPE_CHECKING:
    from tombola.models import Host

__all__ = ["ADAPTER", "SparseMethod", "attach", "values_of"]

ADAPTER = "default"  # the name that PEFT gives to a model's only adapter


@dataclass(frozen=True)
class SparseMethod:
    """The fields and the files of a method whose delta is a SparseDelta adapter; `fit` is each method's own.

    `seed` draws the adapter's initial values, whatever was drawn before; the support's own seed is in `config`.
    """

    saved_in: ClassVar[str] = "adapter"

    config: SparseDeltaConfig
    seed: int = 0

    def save(self, model: nn.Module, folder: Path) -> None:
        """PEFT's two files and a README; the config has each layer's count, so that it loads as any adapter does."""
        write_counts(model)
        save_adapter(cast(PeftModel, model), folder)

    def load(self, host: Host, folder: Path) -> nn.Module:
        """`PeftModel.from_pretrained` on the host's original weights."""
        return cast(nn.Module, PeftModel.from_pretrained(host.net, str(folder)).eval())


def values_of(layer: SparseDeltaLinear) -> Tensor:
    """(units, ...) the values at the support, detached."""
    return cast(Tensor, layer.sparse_delta_values[ADAPTER].weight).detach()
