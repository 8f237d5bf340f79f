"""What the fields that the code reads may hold: type, range, names. The numbers behind every 'out of range' line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """The values a field takes. `low` and `high` are included unless `open` says that they are not."""

    kind: type
    low: float | None = None
    high: float | None = None
    open: str = ""  # "low", "high" or "low high"
    names: tuple[str, ...] = ()
    nullable: bool = False
    length: int | None = None  # of a list, whose elements `low` and `high` then bound


COUNT = Field(int, low=1)
COUNT_OR_NULL = Field(int, low=1, nullable=True)
FLAG = Field(bool)
TEXT = Field(str)
TEXT_OR_NULL = Field(str, nullable=True)
POSITIVE = Field(float, low=0, open="low")
FROM_ZERO = Field(float, low=0)
SHARE_BELOW_ONE = Field(float, low=0, high=1, open="high")
SHARE = Field(float, low=0, high=1, open="low")

# Names of transformers.get_scheduler that need no arguments of their own.
SCHEDULES: tuple[str, ...] = ("linear", "cosine", "cosine_with_restarts", "polynomial")
SCHEDULES += ("constant", "constant_with_warmup", "inverse_sqrt")
KINDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}

FIELDS: dict[str, Field] = {
    "seed": Field(int, low=0, high=2**32 - 1),  # NumPy's range
    "force": FLAG,
    "plan": FLAG,
    "table": TEXT_OR_NULL,
    "runs.dir": TEXT,
    "records.dir": TEXT,
    "training.epochs": POSITIVE,
    "training.batch_size": COUNT,
    "training.token_budget": COUNT,
    "training.lr": POSITIVE,
    "training.weight_decay": FROM_ZERO,
    "training.optimizer": Field(str, names=("adamw", "adamw_8bit", "adamw_per_entry", "sgd", "rmsprop")),
    "training.betas": Field(list, low=0, high=1, open="high", length=2),
    "training.eps": POSITIVE,
    "training.schedule": Field(str, names=SCHEDULES),
    "training.warmup_ratio": SHARE_BELOW_ONE,
    "training.warmup_steps": Field(int, low=0, nullable=True),
    "training.head_lr": Field(float, low=0, open="low", nullable=True),
    "training.base_dropout": Field(float, low=0, high=1, open="high", nullable=True),
    "training.max_grad_norm": Field(float, low=0, open="low", nullable=True),
    "training.mixed_precision": Field(str, names=("no", "bf16")),
    "training.gradient_checkpointing": FLAG,
    "training.non_finite": Field(str, names=("stop", "skip", "rewind")),
    "training.checkpoint_every": COUNT,
    "training.validate_every": COUNT_OR_NULL,
    "training.select": Field(str, names=("last", "best")),
    "training.validation_rows": Field(int, low=0),
    "training.max_length": COUNT,
    "training.eval_token_budget": COUNT,
    "training.max_steps": COUNT_OR_NULL,
    "training.max_rows": COUNT_OR_NULL,
    "training.max_eval_rows": COUNT_OR_NULL,
    "evaluation.generate": Field(str, names=("transformers", "vllm")),
    "evaluation.vllm_python": TEXT_OR_NULL,
    "launch.kind": Field(str, names=("single", "ddp", "zero2", "zero3")),
    "launch.nproc": COUNT,
    "log.tracker": Field(str, names=("none", "wandb", "trackio", "tensorboard")),
    "log.project": TEXT,
    "log.offline": FLAG,
    "model.source": Field(str, names=("hub", "package", "random")),
    "model.role": Field(str, names=("encoder", "decoder", "image_encoder")),
    "model.dtype": Field(str, names=("float32", "bfloat16", "float16")),
    "model.path": TEXT_OR_NULL,
    "model.grid.in_divs": COUNT,
    "model.grid.out_divs": COUNT,
    "task.kind": Field(str, names=("classify", "regress", "choose", "generate", "probe")),
    "task.data_dir": TEXT_OR_NULL,
    "task.validation_rows": Field(int, low=0),
    "task.num_beams": COUNT,
    "task.max_new_tokens": COUNT,
    # Of whatever method has them: the names mean the same in our adapters and in PEFT's.
    "method.config.k": COUNT,
    "method.config.in_divs": COUNT,
    "method.config.out_divs": COUNT,
    "method.config.magnitude": Field(str, names=("literal", "per_candidate", "constant")),
    "method.config.alpha": POSITIVE,
    "method.config.score_init_a": FROM_ZERO,
    "method.config.dropout": SHARE_BELOW_ONE,
    "method.config.r": COUNT,
    "method.config.lora_alpha": POSITIVE,
    "method.config.lora_dropout": SHARE_BELOW_ONE,
    "method.n_prunings": Field(int, low=0),
    "method.keep_of_stable": SHARE,
    "method.target_density": Field(float, low=0, high=1, open="low", nullable=True),
    "method.sparsity": SHARE_BELOW_ONE,
    "method.density": SHARE,
    "method.n_iterations": COUNT,
    "method.dense_epochs": Field(float, low=0, open="low", nullable=True),
    "method.dense_lr_factor": POSITIVE,
}


def fault(field: Field, value: Any) -> str | None:
    """What was expected, where `value` (of the right type or not) is not it; None where it is."""
    if value is None:
        return None if field.nullable else f"expected {describe(field)}"
    if field.kind is list:
        fits = isinstance(value, list) and len(value) == field.length and all(_number_in(field, one) for one in value)
    elif field.kind in (int, float):
        fits = _number_in(field, value)
    else:
        fits = isinstance(value, field.kind) and (not field.names or value in field.names)
    return None if fits else f"expected {describe(field)}"


def describe(field: Field) -> str:
    """The field's values in words: `a whole number of at least 1, or null`."""
    if field.names:
        text = f"one of {', '.join(field.names)}"
    elif field.kind is list:
        text = f"a list of {field.length} numbers{_range(field)}"
    else:
        text = KINDS[field.kind] + _range(field)
    return text + (", or null" if field.nullable else "")


def _number_in(field: Field, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float) if field.kind is not int else int):
        return False
    # NaN fails every comparison, so it has to be asked for what it must be, not for what it must not
    above = field.low is None or (value > field.low if "low" in field.open else value >= field.low)
    below = field.high is None or (value < field.high if "high" in field.open else value <= field.high)
    return above and below and abs(value) != float("inf")


def _range(field: Field) -> str:
    low, high = field.low, field.high
    if low is not None and high is not None:
        return f" from {low:g} {'to below' if 'high' in field.open else 'to'} {high:g}"
    if low is not None:
        return f" above {low:g}" if "low" in field.open else f" of at least {low:g}"
    return ""
