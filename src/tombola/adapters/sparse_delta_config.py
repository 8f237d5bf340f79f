"""Settings of a SparseDelta adapter, saved as `adapter_config.json`."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from peft import PeftConfig
from peft.utils import PeftType

from tombola.adapters.layer_choice import check_choice, prepare_layer_choice, with_sorted_sets

Structure = Literal["element", "block"]
SupportRule = Literal["random", "full"]
DeltaInit = Literal["zeros", "kaiming", "normal"]
ValuesDtype = Literal["float32", "bfloat16"]

_CHOICES = {"structure": Structure, "support": SupportRule, "delta_init": DeltaInit, "values_dtype": ValuesDtype}


@dataclass
class SparseDeltaConfig(PeftConfig):
    """Which layers get a delta, at how many of their coordinates, and how it starts.

    Exactly one of `count`, `density` and `support="full"` says how many.

    - `count`: trainable numbers of each layer, or one number for each layer by its path or the end of its path. In such
      a table 0 is a layer that was dropped: it keeps its place, with nothing in it.
    - `density`: share of each layer's weight; `floor(density * out * in)` elements, for blocks
      `floor(floor(density * out * in) / block^2)` tiles.
    - `structure`: `element`, or `block` for aligned, contiguous `block` x `block` tiles.
    - `support`: `random` draws each layer's coordinates from `seed` and the layer's path; methods may put others later.
      `full` is every coordinate.
    - `scale`: fixed factor of the delta. `gate`: a trained factor for each layer, which starts at `gate_init`.
    - `delta_init`: the values' start: `zeros`, `kaiming` for U(-1/sqrt(in), 1/sqrt(in)), `normal` for N(0, 1/in).
    - `values_dtype`: dtype of values, their gradients and moments.
    - `modules_to_save`, `exclude_modules`, `layers_to_transform`, `layers_pattern`: as in PEFT's other configs.
    """

    target_modules: list[str] | str | None = None
    count: int | dict[str, int] | None = None
    density: float | None = None
    structure: str = "element"
    block: int = 16
    support: str = "random"
    scale: float = 1.0
    gate: bool = False
    gate_init: float = 1e-6
    delta_init: str = "zeros"
    seed: int = 0
    values_dtype: str = "float32"
    modules_to_save: list[str] | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["SPARSE_DELTA"]
        prepare_layer_choice(self)
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), get_args(choices))
        _check_size(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; sets as sorted lists, so that equal configs are saved as equal bytes."""
        return with_sorted_sets(super().to_dict())

    @property
    def tile(self) -> int:
        """Side of a unit of the support: `block`, or 1 for elements."""
        return self.block if self.structure == "block" else 1


def _check_size(config: SparseDeltaConfig) -> None:
    given = [config.count is not None, config.density is not None, config.support == "full"]
    if sum(given) != 1:
        raise ValueError(
            f"count={config.count!r}, density={config.density!r}, support={config.support!r}: give exactly one of "
            'count, density and support="full", which say how many numbers of each layer are trained'
        )
    if not isinstance(config.block, int) or isinstance(config.block, bool) or config.block < 1:
        raise ValueError(f"block={config.block!r}: it must be a whole number of at least 1")
    if config.density is not None and not 0.0 < config.density <= 1.0:
        raise ValueError(f"density={config.density!r}: it must be above 0 and at most 1")
    least = 0 if isinstance(config.count, dict) else 1
    counts = config.count.values() if isinstance(config.count, dict) else [config.count]
    for count in counts if config.count is not None else ():
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise ValueError(f"count={config.count!r}: {count!r} must be a whole number of at least {least}")
