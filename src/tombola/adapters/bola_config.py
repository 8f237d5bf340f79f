"""Settings of a BoLA adapter, saved as `adapter_config.json`."""

import math
from dataclasses import dataclass
from typing import Any, get_args

from peft import PeftConfig
from peft.utils import PeftType

from tombola.adapters.layer_choice import check_choice, prepare_layer_choice, with_sorted_sets
from tombola.adapters.ops.selection import Magnitude


@dataclass
class BolaConfig(PeftConfig):
    """Which layers get a BoLA adapter, and how many blocks each may draw.

    `target_modules` alone is enough: without it the papers' layers of known architectures are taken
    (`tombola.adapters.targets`), and without `in_divs` and `out_divs` each layer gets the squarest grid at which `k`
    candidates train as many numbers as LoRA of rank `k` (`tombola.adapters.bola_grid.balanced_grid`).

    - `k`: candidates of a layer; each draws one block, and two may draw the same one.
    - `in_divs`, `out_divs`: stripes of a weight's columns and of its rows (n and m in the paper); both or neither.
    - `alpha`: factor of the delta.
    - `dropout`: share of the adapter's input that is dropped in training; the base layer sees the whole input.
    - `magnitude`: `literal` multiplies a block's summed scores with its summed values, as in equations 5 and 6;
      `per_candidate` multiplies first and sums then; with `constant` the scores only choose.
    - `score_init_a`: `a` of the Kaiming-uniform start of the scores; √5 gives U(-1/√(nm), 1/√(nm)).
    - `modules_to_save`, `exclude_modules`, `layers_to_transform`, `layers_pattern`: as in PEFT's other configs.

    Source: Block-wise Lottery Ticket Adaptation, equations 2 to 8; the defaults of `k` and `alpha` are its table 4.
    """

    target_modules: list[str] | str | None = None
    k: int = 8
    in_divs: int | None = None
    out_divs: int | None = None
    alpha: float = 4.0
    dropout: float = 0.0
    magnitude: str = "literal"
    score_init_a: float = math.sqrt(5)
    modules_to_save: list[str] | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["BOLA"]
        prepare_layer_choice(self)
        check_choice("magnitude", self.magnitude, get_args(Magnitude))
        _check_counts(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; sets as sorted lists, so that equal configs are saved as equal bytes."""
        return with_sorted_sets(super().to_dict())


def _check_counts(config: BolaConfig) -> None:
    for name in ("k", "in_divs", "out_divs"):
        value = getattr(config, name)
        if value is None and name != "k":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}: it must be a whole number of at least 1")
    if (config.in_divs is None) != (config.out_divs is None):
        raise ValueError(
            f"in_divs={config.in_divs}, out_divs={config.out_divs}: give both, "
            "or neither for a grid of each layer's own"
        )
    if not 0.0 <= config.dropout < 1.0:
        raise ValueError(f"dropout={config.dropout!r}: it must be at least 0 and below 1")
    if config.score_init_a < 0:
        raise ValueError(f"score_init_a={config.score_init_a!r}: it must be at least 0")
