"""What a masked LoRA adapter starts from, layer by layer."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tombola.adapters.kept import kept_places
from tombola.adapters.masked_lora_config import MaskedLoraConfig, masked_lora_counts, masked_lora_sizes
from tombola.adapters.ops import Kept, stored
from tombola.adapters.rosa_leaves import lora_factors


class Start(NamedTuple):
    """The kept numbers of A and B, and their places: columns and rows, or entries; int64."""

    a: Float[Tensor, "*stored_a"]
    b: Float[Tensor, "*stored_b"]
    columns: Int[Tensor, "kept_a"]
    rows: Int[Tensor, "kept_b"]


def masked_start(
    config: MaskedLoraConfig, layer: str, out_features: int, in_features: int, device: torch.device
) -> Start:
    """The kept part of A and B as PEFT's LoRA starts them from the same random state, at places drawn from the seed.

    All of A is drawn, so that one random state gives one A whatever is kept of it. On the meta device nothing is drawn.
    """
    whole_a, whole_b = (factor.weight.detach() for factor in lora_factors(config.r, out_features, in_features, device))
    kept_rows, kept_cols = masked_lora_counts(config, layer, out_features, in_features)
    rows = torch.empty(kept_rows, dtype=torch.int64, device=device)
    columns = torch.empty(kept_cols, dtype=torch.int64, device=device)
    if device.type != "meta":
        of_b, of_a = masked_lora_sizes(config, out_features, in_features)
        rows = kept_places("kept_rows", config.kept_rows, layer, of_b, config.seed)
        columns = kept_places("kept_cols", config.kept_cols, layer, of_a, config.seed)
    a, b = masked_kept(config, columns, rows, out_features, in_features)
    return Start(stored(whole_a, a).clone(), stored(whole_b, b).clone(), columns, rows)


def masked_kept(
    config: MaskedLoraConfig,
    columns: Int[Tensor, "kept_a"],
    rows: Int[Tensor, "kept_b"],
    out_features: int,
    in_features: int,
) -> tuple[Kept, Kept]:
    """How A, (r, in), and B, (out, r), are stored."""
    of_b, of_a = masked_lora_sizes(config, out_features, in_features)
    lines = config.granularity == "row_col"
    a = Kept(columns if columns.numel() < of_a else None, (config.r, in_features), 1 if lines else None)
    b = Kept(rows if rows.numel() < of_b else None, (out_features, config.r), 0 if lines else None)
    return a, b
