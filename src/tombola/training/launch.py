"""The accelerator and the engine of a launch: `single`, `ddp`, `zero2` or `zero3`."""

import os
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import nn

from tombola.training.engine import Engine
from tombola.training.plain import PlainEngine
from tombola.training.settings import Settings
from tombola.training.weights import trainable_parameters

KINDS = ("single", "ddp", "zero2", "zero3")


def start_accelerator(launch: dict[str, Any], *, max_grad_norm: float | None = None) -> Accelerator:
    """The accelerator for `launch.kind`, on as many processes as torch.distributed.run has started."""
    kind = launch.get("kind", "single")
    if kind not in KINDS:
        raise ValueError(f"launch.kind must be one of {', '.join(KINDS)}. Got {kind!r}.")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if kind == "single" and processes > 1:
        raise ValueError(f"launch.kind is single, but {processes} processes were started. Type launch=ddp.")
    if kind != "single" and "RANK" not in os.environ:
        raise ValueError(
            f"launch.kind is {kind}, but no process group was started. Type `python train.py launch={kind} "
            "launch.nproc=N ...`, which starts one, or run under torch.distributed.run."
        )
    handlers: list[Any] = []
    on_cpu = not torch.cuda.is_available()
    if kind != "single" and on_cpu:
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
    if kind == "ddp":
        # Buffers are adapters' indices and masks, equal on all ranks already: DDP would send them in every forward.
        options = {"broadcast_buffers": False, "find_unused_parameters": False, "gradient_as_bucket_view": True}
        handlers.append(DistributedDataParallelKwargs(**options))
    if kind in ("zero2", "zero3"):
        from tombola.training.zero import start_zero

        return start_zero(stage=int(kind[-1]), max_grad_norm=max_grad_norm, handlers=handlers)
    # Without `cpu`, accelerate starts the group, then takes the launch for one that is not distributed: no DDP.
    return Accelerator(cpu=kind == "ddp" and on_cpu, kwargs_handlers=handlers)


def attach(accelerator: Accelerator, model: nn.Module, settings: Settings) -> Engine:
    """The launch's engine around the model, which is moved to the accelerator's device."""
    if not trainable_parameters(model):
        raise ValueError("No parameter of the model requires gradients: there is nothing to train.")
    model.to(accelerator.device)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from tombola.training.zero import ZeroEngine

        return ZeroEngine(accelerator, model, settings)
    return PlainEngine(accelerator, model, settings)
