"""The engine of ZeRO stages 2 and 3, DeepSpeed's, through accelerate.

DeepSpeed is told where an optimizer batch ends instead of counting micro-batches, so that a step that is not finite is
seen before it is taken; accelerate's own `backward` steps by itself.
"""

import contextlib
import os
from collections.abc import Collection, Mapping
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.state import is_initialized
from torch import Tensor, nn

from tombola.training.optimizer import build_optimizer
from tombola.training.settings import Settings
from tombola.training.weights import trainable_parameters
from tombola.training.zero_shards import load_optimizer_state, load_values, optimizer_state, plain_again, set_shards

BUCKET_ELEMENTS = 20_000_000  # of gradients that are reduced at once; DeepSpeed's own 5e8 allocate 2 GB for an adapter
PERSISTENT_ELEMENTS = 100_000  # a parameter of at most so many stays whole on every rank in stage 3


def start_zero(*, stage: int, max_grad_norm: float | None, handlers: list[Any]) -> Accelerator:
    """The accelerator of a stage, with nothing left to a default that would change the arithmetic."""
    config = {
        # DeepSpeed wants numbers to multiply here; the loop has its own batches.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm or 0.0,  # accelerate fills in 1.0 where this is missing
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # No bf16 section: it would cast the parameters, BoLA's scores too, and the loop has autocast of its own.
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": PERSISTENT_ELEMENTS,
        },
    }
    if is_initialized():  # a second trainer in this process: accelerate takes no second plugin
        accelerator = Accelerator()
        accelerator.deepspeed_plugin.deepspeed_config.update(config)
        return accelerator
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    if not torch.cuda.is_available():
        _use_gloo_alone()
    plugin = DeepSpeedPlugin(hf_ds_config=config, zero3_init_flag=False)
    return Accelerator(deepspeed_plugin=plugin, kwargs_handlers=handlers)


def _use_gloo_alone() -> None:
    """DeepSpeed on the CPU, without the shared-memory operator that it would compile at the start."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class ZeroEngine:
    """The model in DeepSpeed's engine."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, settings: Settings):
        self.accelerator = accelerator
        self.model = model
        half = next((name for name, p in trainable_parameters(model).items() if p.dtype == torch.bfloat16), None)
        if half is not None:
            raise ValueError(
                f"{half} is trained in bfloat16, which ZeRO would keep a float32 copy of and not resume to the bit. "
                "Train float32 values (method.config.values_dtype=float32), or set launch=ddp."
            )
        self.shapes = {name: parameter.shape for name, parameter in trainable_parameters(model).items()}
        self.optimizer = build_optimizer(trainable_parameters(model), settings)
        self.wrapped, _ = accelerator.prepare(model, self.optimizer)
        self.parameters = trainable_parameters(model)
        self.zero: Any = self.wrapped.optimizer

    def __call__(self, **inputs: Tensor) -> Any:
        """The model's output."""
        return self.wrapped(**inputs)

    def micro_step(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Says whether this micro-batch ends the optimizer batch; gradients are reduced in each."""
        self.wrapped.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradients."""
        self.wrapped.backward(loss)

    def gradient_norm(self) -> float:
        """2-norm of the whole gradient."""
        from deepspeed.utils import safe_get_full_grad

        norms = [torch.linalg.vector_norm(safe_get_full_grad(parameter)) for parameter in self.parameters.values()]
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    def step(self, max_norm: float | None, norm: float, *, seed: int) -> None:
        """Clips by DeepSpeed's own norm, to the `gradient_clipping` of its plugin, then moves and forgets."""
        self.wrapped.step()

    def forget_gradients(self) -> None:
        """What DeepSpeed does after a step, without one."""
        for kept in (self.zero.averaged_gradients, getattr(self.zero, "all_grad_tensors", {})):
            for group in kept:
                kept[group] = None
        self.zero.zero_grad()

    def values(self) -> dict[str, Tensor]:
        """The values that DeepSpeed updates, in the parameters' dtype."""
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(p).to(p.dtype) for name, p in self.parameters.items()}

    def load_values(self, values: Mapping[str, Tensor]) -> None:
        """Sets both DeepSpeed's copy and the model's."""
        for name, value in values.items():
            load_values(self.parameters[name], value)

    def optimizer_state(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """The optimizer's tensors, gathered."""
        wanted = {name: p for name, p in self.parameters.items() if names is None or name in names}
        return optimizer_state(wanted, self.optimizer, self.zero)

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Sets the optimizer's tensors, each rank its shard."""
        load_optimizer_state(self.parameters, self.optimizer, self.zero, state)

    def overwrite_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Sets some of the optimizer's tensors, each rank its shard."""
        set_shards(self.parameters, state)

    def close(self) -> None:
        """Gathers the model and takes DeepSpeed's engine and hooks off it."""
        self.forget_gradients()
        plain_again(self.model, self.accelerator.free_memory)
