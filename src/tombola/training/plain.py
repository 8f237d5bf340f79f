"""The engine of a single process, or of one of several under DDP."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tombola.training.eight_bit import TABLES
from tombola.training.half import stand_in, step_halves
from tombola.training.optimizer import build_optimizer
from tombola.training.settings import Settings
from tombola.training.weights import copy_into, trainable_parameters


class PlainEngine:
    """The model as it is, in DDP's wrapping where there are more processes."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, settings: Settings):
        self.accelerator = accelerator
        self.parameters = trainable_parameters(model)
        self.shapes = {name: parameter.shape for name, parameter in self.parameters.items()}
        self.wrapped = accelerator.prepare(model)
        self.stepped = {name: stand_in(parameter) for name, parameter in self.parameters.items()}
        self.optimizer = build_optimizer(self.stepped, settings)

    def __call__(self, **inputs: Tensor) -> Any:
        """The model's output."""
        return self.wrapped(**inputs)

    def micro_step(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """DDP reduces in the backward that is told to be the last."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradients."""
        self.accelerator.backward(loss)

    def gradient_norm(self) -> float:
        """2-norm of the whole gradient."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        # torch gives a bfloat16 tensor's norm in bfloat16; a float32 norm stands for it here.
        norms = [
            torch.linalg.vector_norm(g, dtype=torch.float32) if g.dtype == torch.bfloat16 else g for g in gradients
        ]
        return float(torch.nn.utils.get_total_norm(norms))

    def step(self, max_norm: float | None, norm: float, *, seed: int) -> None:
        """Clips, moves the parameters, forgets the gradient."""
        if max_norm is not None:
            total = torch.tensor(norm, device=self.accelerator.device)
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), max_norm, total)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        step_halves(self.optimizer, self.parameters, self.stepped, seed=seed)
        self.forget_gradients()

    def forget_gradients(self) -> None:
        """Drops the gradient."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def values(self) -> dict[str, Tensor]:
        """The live parameters, detached."""
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    def load_values(self, values: Mapping[str, Tensor]) -> None:
        """Sets the parameters in place."""
        copy_into({name: self.parameters[name] for name in values}, values)

    def optimizer_state(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """The optimizer's live tensors."""
        return {
            f"{key}/{name}": torch.as_tensor(value)
            for name, parameter in self.stepped.items()
            for key, value in self.optimizer.state[parameter].items()
            if isinstance(value, Tensor | int) and key not in TABLES and (names is None or name in names)
        }

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Through torch's own loading, which puts each tensor where its optimizer wants it."""
        numbers = {name: number for number, name in enumerate(self._names_in_groups())}
        by_number: dict[int, dict[str, Tensor]] = {}
        for path, value in state.items():
            key, _, name = path.partition("/")
            by_number.setdefault(numbers[name], {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": by_number})

    def overwrite_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """In place."""
        copy_into({path: value for path, value in self.optimizer_state().items() if path in state}, state)

    def close(self) -> None:
        """Drops gradients and DDP's wrapping, whose hooks go with it."""
        self.forget_gradients()
        del self.wrapped
        self.accelerator.free_memory()

    def _names_in_groups(self) -> Iterator[str]:
        names = {parameter: name for name, parameter in self.stepped.items()}
        for group in self.optimizer.param_groups:
            yield from (names[parameter] for parameter in group["params"])
