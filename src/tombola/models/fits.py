"""Whether a method that trains about as many numbers as the model has fits one 24 GB card, and with what settings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tombola.models.memory import Load, Memory, estimate

CARD = 24 * 10**9  # bytes; the 1.8e9 that a 24 GiB card has beyond go to CUDA itself and the allocator's gaps
LARGE = 0.1  # share of the model above which a trainable delta is what decides


@dataclass(frozen=True)
class Setting:
    """One way to save memory on what is trained, and what a step then needs."""

    values_dtype: str
    optimizer: str
    gradient_checkpointing: bool
    memory: Memory

    @property
    def fits(self) -> bool:
        """Whether the step fits the card."""
        return self.memory.total <= CARD

    @property
    def overrides(self) -> str:
        """What to type for it."""
        checkpointing = str(self.gradient_checkpointing).lower()
        return (
            f"method.config.values_dtype={self.values_dtype} training.optimizer={self.optimizer} "
            f"training.gradient_checkpointing={checkpointing}"
        )


def settings_for(
    adapter: Mapping[str, Any],
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    launch: Mapping[str, Any],
    load: Load,
    values: int,
) -> tuple[Setting, ...]:
    """The memory of each setting, for a sparse delta of many `values`; none for small ones, others and under ZeRO.

    ZeRO has its own way to save what an optimizer keeps, and takes neither 8-bit moments nor bfloat16 values.
    """
    sparse = "SparseDeltaConfig" in str(adapter.get("_target_"))
    if not sparse or values <= LARGE * load.frozen or launch["kind"].startswith("zero"):
        return ()
    found = []
    ways = itertools.product(("float32", "bfloat16"), ("adamw", "adamw_8bit"), (False, True))
    for dtype, optimizer, checkpointing in ways:
        changed = {**training, "optimizer": optimizer, "gradient_checkpointing": checkpointing}
        one = replace(load, half=values if dtype == "bfloat16" else 0)
        found.append(Setting(dtype, optimizer, checkpointing, estimate(model, changed, launch, one)))
    return tuple(found)
