"""torch's optimizers and transformers' schedules from the settings."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import get_scheduler

from tombola.training.eight_bit import adamw_8bit
from tombola.training.per_entry import AdamWPerEntry
from tombola.training.settings import Settings

HEAD = ".modules_to_save."  # how PEFT names what is trained in full beside an adapter
# Adapters' matrices that are stored as vectors of their entries, and RIGSA's gates: it decays both (methods.md 2.4).
DECAYED_VECTORS = (".sparse_delta_values.", ".sparse_delta_gate.", ".rosa_values.")


def build_optimizer(parameters: Mapping[str, nn.Parameter], settings: Settings) -> Optimizer:
    """The optimizer over the named parameters; each group has its `peak_lr`, which the schedule scales.

    Vectors (biases, norms) take no weight decay, as in Hugging Face's Trainer; the values of sparse adapters do.
    """
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        of_head = HEAD in name and settings.head_lr is not None
        peak_lr = settings.head_lr if of_head else settings.lr
        decays = parameter.ndim > 1 or any(leaf in name for leaf in DECAYED_VECTORS)
        decay = settings.weight_decay if decays else 0.0
        members.setdefault((peak_lr or 0.0, decay), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": params, "peak_lr": peak_lr, "weight_decay": decay} for (peak_lr, decay), params in members.items()
    ]
    adam: dict[str, Any] = {"lr": settings.lr, "betas": (settings.betas[0], settings.betas[1]), "eps": settings.eps}
    # Fused is one kernel a step, element by element, hence as deterministic as the loop that it replaces.
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, **adam, fused=True)
    if settings.optimizer == "adamw_per_entry":
        return AdamWPerEntry(groups, **adam)
    if settings.optimizer == "adamw_8bit":
        return adamw_8bit(groups, **adam)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, fused=True)
    return torch.optim.RMSprop(groups, lr=settings.lr, eps=settings.eps)


def build_schedule(settings: Settings, total_steps: int) -> Callable[[int], float]:
    """The factor on the learning rate at a step: a function of the step alone, so resuming needs no state of it."""
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = math.ceil(settings.warmup_ratio * total_steps)
    stand_in = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    try:
        schedule: Any = get_scheduler(settings.schedule, stand_in, warmup, total_steps)
        return schedule.lr_lambdas[0]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"training.schedule={settings.schedule!r} cannot be built from warm-up and total steps ({error}). "
            "Try linear, cosine, constant or constant_with_warmup."
        ) from error
