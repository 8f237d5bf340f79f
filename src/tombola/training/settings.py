"""The `training` group of the configuration as a checked, frozen value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CHOICES = {
    "optimizer": ("adamw", "adamw_8bit", "adamw_per_entry", "sgd", "rmsprop"),
    "mixed_precision": ("no", "bf16"),
    "non_finite": ("stop", "skip", "rewind"),
    "select": ("last", "best"),
}
AT_LEAST_ONE = (
    "batch_size", "token_budget", "checkpoint_every", "validate_every", "max_length", "eval_token_budget",
    "max_steps", "max_rows", "max_eval_rows",
)  # fmt: skip
NOT_NEGATIVE = (
    "lr", "head_lr", "weight_decay", "eps", "warmup_ratio", "warmup_steps", "max_grad_norm", "validation_rows",
    "base_dropout",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a phase is trained. Counts of `steps` are optimizer steps; `None` means off or no cap."""

    epochs: float = 3
    batch_size: int = 16  # rows of one optimizer batch, over all ranks
    token_budget: int = 4096  # padded tokens of one micro-batch on one rank
    lr: float = 1e-3
    head_lr: float | None = None  # of a new head beside an adapter; None: lr
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    betas: Sequence[float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: str = "linear"  # a name of transformers.get_scheduler
    warmup_ratio: float = 0.0  # share of the phase's steps
    warmup_steps: int | None = None  # wins over warmup_ratio
    max_grad_norm: float | None = None
    base_dropout: float | None = None  # of the frozen model while its adapter trains; None: the model's own
    mixed_precision: str = "no"
    gradient_checkpointing: bool = False
    non_finite: str = "stop"
    checkpoint_every: int = 100
    validate_every: int | None = None  # None: once an epoch
    select: str = "last"
    validation_rows: int = 0
    max_length: int = 512  # tokens
    eval_token_budget: int = 16384
    max_steps: int | None = None  # caps every phase
    max_rows: int | None = None
    max_eval_rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"training.{name} must be one of {', '.join(allowed)}. Got {getattr(self, name)!r}.")
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"training.{name} must be at least 1. Got {value!r}.")
        for name in NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"training.{name} must be a finite number, 0 or more. Got {value!r}.")
        if not (self.epochs > 0 and math.isfinite(self.epochs)):
            raise ValueError(f"training.epochs must be a finite number above 0. Got {self.epochs!r}.")
