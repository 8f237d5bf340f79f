"""Settings of a masked LoRA adapter, saved as `adapter_config.json`."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from peft import PeftConfig
from peft.utils import PeftType

from tombola.adapters.kept import checked, kept_count, with_counts
from tombola.adapters.layer_choice import check_choice, prepare_layer_choice, with_sorted_sets

Granularity = Literal["row_col", "element"]


@dataclass
class MaskedLoraConfig(PeftConfig):
    """Which layers get LoRA's delta, lora_alpha / r * B A, and how much of its factors B and A is trained.

    What is not kept is zero, neither stored nor trained.

    - `r`, `lora_alpha`, `lora_dropout`: as in PEFT's LoRA, which the adapter is where everything is kept.
    - `granularity`: `row_col` keeps rows of B, (out, r), and columns of A, (r, in); `element` keeps single entries.
    - `kept_rows` for B, `kept_cols` for A: a share in (0, 1], or a dict from layers' paths or the ends of them to
      shares (float), counts (int; 0 keeps nothing) or masks (list or tensor of bools, True for kept), one for each row
      of B and column of A or, with `element`, for each entry of the factor, row by row. A share keeps
      max(1, round(share * size)). A saved config has the masks' counts; the masks are saved with the values.
    - `seed`: draws, with the layer's path, what a share or a count keeps.
    - `modules_to_save`, `exclude_modules`, `layers_to_transform`, `layers_pattern`: as in PEFT's other configs.

    Source: Partial-LoRA and Targeted-LoRA (Damirchi et al., 2025, arXiv 2512.22495); that masked entries of A start,
    and stay, at zero is our reading.
    """

    target_modules: list[str] | str | None = None
    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    kept_rows: float | dict[str, Any] = 1.0
    kept_cols: float | dict[str, Any] = 1.0
    granularity: str = "row_col"
    seed: int = 0
    modules_to_save: list[str] | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["MASKED_LORA"]
        prepare_layer_choice(self)
        check_choice("granularity", self.granularity, get_args(Granularity))
        if not isinstance(self.r, int) or isinstance(self.r, bool) or self.r < 1:
            raise ValueError(f"r={self.r!r}: it must be a whole number of at least 1")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"lora_dropout={self.lora_dropout!r}: it must be at least 0 and below 1")
        self.kept_rows = checked("kept_rows", self.kept_rows)
        self.kept_cols = checked("kept_cols", self.kept_cols)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: masks as their counts, and sets as sorted lists, so that equal configs are equal bytes."""
        fields = with_sorted_sets(super().to_dict())
        return {**fields, **{name: with_counts(fields[name]) for name in ("kept_rows", "kept_cols")}}


def masked_lora_counts(config: MaskedLoraConfig, layer: str, out_features: int, in_features: int) -> tuple[int, int]:
    """Kept rows of B and columns of A or, with element granularity, kept entries of each.

    Raises ValueError, naming the layer, for a table without it, too large a count, or a mask of another length.
    """
    of_b, of_a = masked_lora_sizes(config, out_features, in_features)
    rows = kept_count("kept_rows", config.kept_rows, layer, of_b)
    return rows, kept_count("kept_cols", config.kept_cols, layer, of_a)


def masked_lora_sizes(config: MaskedLoraConfig, out_features: int, in_features: int) -> tuple[int, int]:
    """What B and A have to keep: their rows and columns or, with element granularity, their entries."""
    lines = config.r if config.granularity == "element" else 1
    return out_features * lines, in_features * lines
