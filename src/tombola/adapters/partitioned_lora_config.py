"""Settings of a partitioned LoRA adapter, saved as `adapter_config.json`."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from peft import PeftConfig
from peft.utils import PeftType

from tombola.adapters.kept import checked, kept_count, with_counts
from tombola.adapters.layer_choice import check_choice, prepare_layer_choice, with_sorted_sets

MinorScale = Literal["tied", "alpha_over_r_minor"]


@dataclass
class PartitionedLoraConfig(PeftConfig):
    """Which layers get a delta whose dominant rows have rank r and whose other rows have rank r_minor.

    delta = s * expand(B) A + s_minor * expand(B_minor) A_minor, where expand puts a group's rows at their places in
    the weight and leaves the others zero.

    - `r`, `lora_alpha`, `lora_dropout`: of the dominant rows, as in PEFT's LoRA, which the adapter is where all rows
      are dominant; s = lora_alpha / r. Dropout is on the adapter's input alone.
    - `r_minor`: rank of the other rows; with 0 they stay as they are, and nothing is stored for them.
    - `minor_scale`: s_minor is s (`tied`), or lora_alpha / r_minor. Which one the paper has, it does not say.
    - `dominant`: a share in (0, 1], or a dict from layers' paths or the ends of them to shares (float), counts (int) or
      masks (list or tensor of bools, one for each row). A share makes max(1, round(share * rows)) dominant. A saved
      config has the masks' counts; the rows are saved with the values.
    - `seed`: draws, with the layer's path, the dominant rows of a share or a count; `tombola.methods.Pilora` finds
      better ones.
    - `modules_to_save`, `exclude_modules`, `layers_to_transform`, `layers_pattern`: as in PEFT's other configs.

    Source: PiLoRA, equations 8 to 11. Its text gives B_minor the rank r, which we take for a slip.
    """

    target_modules: list[str] | str | None = None
    r: int = 8
    r_minor: int = 1
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    dominant: float | dict[str, Any] = 0.5
    minor_scale: str = "tied"
    seed: int = 0
    modules_to_save: list[str] | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["PARTITIONED_LORA"]
        prepare_layer_choice(self)
        check_choice("minor_scale", self.minor_scale, get_args(MinorScale))
        for name, least in (("r", 1), ("r_minor", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r}: it must be a whole number of at least {least}")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"lora_dropout={self.lora_dropout!r}: it must be at least 0 and below 1")
        self.dominant = checked("dominant", self.dominant)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: masks as their counts, and sets as sorted lists, so that equal configs are equal bytes."""
        fields = with_sorted_sets(super().to_dict())
        return {**fields, "dominant": with_counts(fields["dominant"])}

    @property
    def scales(self) -> tuple[float, float]:
        """The factors of the dominant group and of the minor one."""
        scale = self.lora_alpha / self.r
        return scale, self.lora_alpha / self.r_minor if self.r_minor and self.minor_scale != "tied" else scale


def dominant_count(config: PartitionedLoraConfig, layer: str, out_features: int) -> int:
    """The layer's dominant rows.

    Raises ValueError, naming the layer, for a table without it, more rows than it has or none, or a mask of another
    length.
    """
    count = kept_count("dominant", config.dominant, layer, out_features)
    if not count:
        raise ValueError(f"dominant gives none of the {out_features} rows of the layer {layer}: give it at least one")
    return count
