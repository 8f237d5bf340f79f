"""Settings of a LoRA-Dash adapter, saved as `adapter_config.json`."""

from dataclasses import dataclass
from typing import Any

from peft import PeftConfig
from peft.utils import PeftType

from tombola.adapters.layer_choice import prepare_layer_choice, with_sorted_sets


@dataclass
class LoraDashConfig(PeftConfig):
    """Which layers get LoRA and some of their weight's own directions: delta = lora_alpha / r * B A + U diag(c) V^T.

    - `r`, `lora_alpha`, `lora_dropout`: as in PEFT's LoRA; dropout is on the input of both parts.
    - `directions`: columns of U and rows of V^T, which are fixed; c is trained, one number a direction. They are zero,
      and the adapter is LoRA, until `tombola.adapters.choose_directions(model)` finds them.
    - `modules_to_save`, `exclude_modules`, `layers_to_transform`, `layers_pattern`: as in PEFT's other configs.

    Source: LoRA-Dash (Si et al., 2024, arXiv 2409.01035); its code has 8 directions.
    """

    target_modules: list[str] | str | None = None
    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    directions: int = 8
    modules_to_save: list[str] | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["LORA_DASH"]
        prepare_layer_choice(self)
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; sets as sorted lists, so that equal configs are saved as equal bytes."""
        return with_sorted_sets(super().to_dict())


def _check(config: LoraDashConfig) -> None:
    for name, value in (("r", config.r), ("directions", config.directions)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}: it must be a whole number of at least 1")
    if not config.lora_alpha > 0:
        raise ValueError(f"lora_alpha={config.lora_alpha!r}: it must be above 0")
    if not 0.0 <= config.lora_dropout < 1.0:
        raise ValueError(f"lora_dropout={config.lora_dropout!r}: it must be at least 0 and below 1")
