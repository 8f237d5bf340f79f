"""Settings of a RoSA adapter, saved as `adapter_config.json`."""

from dataclasses import dataclass
from typing import Any

from peft import PeftConfig
from peft.utils import PeftType

from tombola.adapters.layer_choice import prepare_layer_choice, with_sorted_sets


@dataclass
class RosaConfig(PeftConfig):
    """Which layers get a low-rank and a sparse delta at once: delta = lora_alpha / r * B A + sparse_scale * S.

    - `r`, `lora_alpha`, `lora_dropout`: as in PEFT's LoRA, which the adapter is where the sparse part is empty; dropout
      is on the input of A alone. `r=0` leaves the low-rank part out.
    - `count` or `density`, exactly one of them: entries of S in each layer. `count` is one number, or one for each
      layer by its path or the end of its path; `density` is the share of the weight, rounded down. 0 leaves S out.
    - `sparse_scale`: fixed factor of S. Under Adam it multiplies the learning rate of S: its steps are as large as the
      rate whatever the size of the gradient.
    - `seed`: draws each layer's entries, with the layer's path; methods may put others later.
    - `modules_to_save`, `exclude_modules`, `layers_to_transform`, `layers_pattern`: as in PEFT's other configs.

    Source: RoSA (Nikdan et al., 2024, arXiv 2401.04679), equation 1 and section 4.
    """

    target_modules: list[str] | str | None = None
    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    count: int | dict[str, int] | None = None
    density: float | None = None
    sparse_scale: float = 1.0
    seed: int = 0
    modules_to_save: list[str] | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["ROSA"]
        prepare_layer_choice(self)
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; sets as sorted lists, so that equal configs are saved as equal bytes."""
        return with_sorted_sets(super().to_dict())


def _check(config: RosaConfig) -> None:
    if (config.count is None) == (config.density is None):
        raise ValueError(
            f"count={config.count!r}, density={config.density!r}: give exactly one of them, the entries of each "
            "layer that the sparse part has; count=0 is plain LoRA"
        )
    if config.density is not None and not 0.0 <= config.density <= 1.0:
        raise ValueError(f"density={config.density!r}: it must be at least 0 and at most 1")
    counts = config.count.values() if isinstance(config.count, dict) else [config.count or 0]
    for name, value in (("r", config.r), *(("count", count) for count in counts)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name}={value!r}: it must be a whole number of at least 0")
    if config.r == 0 and not (config.count or config.density):
        raise ValueError("r=0 leaves the low-rank part out and count=0 the sparse one: nothing would be trained")
    if not 0.0 <= config.lora_dropout < 1.0:
        raise ValueError(f"lora_dropout={config.lora_dropout!r}: it must be at least 0 and below 1")
