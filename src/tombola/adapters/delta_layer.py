"""A frozen linear layer plus the deltas of its active adapters: what the tuners here share."""

import warnings
from typing import Any

from jaxtyping import Float, Int
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from tombola.adapters.adaptable import linear_shape
from tombola.adapters.merging import Merge, add_delta, put_back


class DeltaLinear(nn.Module, BaseTunerLayer):
    """Forward, merging and unmerging; a tuner's layer says what its deltas are.

    `adapter_layer_names[0]` is the container whose keys are the names of the adapters on this layer.
    """

    def __init__(self, base_layer: nn.Module, name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.out_features, self.in_features = linear_shape(base_layer, "to adapt")
        self._disable_adapters = False
        self._active_adapter = name
        self.merged_adapters = []
        self._merges: list[Merge] = []

    def forward(self, x: Float[Tensor, "*batch in"], *args: Any, **kwargs: Any) -> Float[Tensor, "*batch out"]:
        """The base layer's output plus the active adapters'."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = [name for name in self.active_adapters if name in self.names()]
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x, *args, **kwargs)
        if not args and not kwargs and self._may_borrow_for(names):
            return self._with_base(names[0], x)
        result = self.base_layer(x, *args, **kwargs)
        for name in names:
            result = result + self._product(name, x).to(result.dtype)
        return result

    def names(self) -> list[str]:
        """The adapters on this layer."""
        return list(getattr(self, self.adapter_layer_names[0]))

    def get_delta_weight(self, name: str) -> Float[Tensor, "out in"]:
        """The adapter's delta as a dense matrix."""
        raise NotImplementedError

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Writes the deltas of the active (or named) adapters into the base weight, keeping what they overwrite.

        Raises ValueError for quantised and sharded weights and, with `safe_merge`, for a sum that is not finite.
        """
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.names():
                continue
            lines, width = self._changed_lines(name)
            delta = self.get_delta_weight(name)
            self._merges.append(add_delta(self.get_base_layer(), delta, lines, width, name, check=safe_merge))
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Puts the overwritten entries back: the base weight is bit for bit what it was."""
        if not self.merged:
            warnings.warn("nothing is merged, so there is nothing to unmerge", stacklevel=2)
        while self._merges:
            put_back(self.get_base_layer(), self._merges.pop())
        self.merged_adapters.clear()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """True: the delta is added to the weight, so PEFT can factor it."""
        return True

    def _require(self, name: str) -> None:
        if name not in self.names():
            raise ValueError(f"no adapter {name!r} on this layer; it has {', '.join(self.names()) or 'none'}")

    def _may_borrow_for(self, names: list[str]) -> bool:
        """Whether the one adapter of `names` may be written into the base weight for a product's length."""
        raise NotImplementedError

    def _with_base(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The layer's output with the adapter, computed on the base weight itself."""
        raise NotImplementedError

    def _product(self, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The delta's product with x alone."""
        raise NotImplementedError

    def _changed_lines(self, name: str) -> tuple[Int[Tensor, "l"], int]:
        """Lines of the weight, and their width, outside which the delta is zero."""
        raise NotImplementedError
