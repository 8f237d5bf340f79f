"""The tensors of a model that training changes: trainable parameters and the adapter's persistent buffers."""

from collections.abc import Iterator, Mapping

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn


def base_model(model: nn.Module) -> nn.Module:
    """The model inside PEFT's wrapping, adapters included."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def trained_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The persistent buffers that belong to adapters (indices, masks); of a model without adapters all of them.

    The frozen model's own (a quantised layer's packed weights, say) do not change and would fill every checkpoint.
    """
    if not isinstance(model, PeftModel):
        return dict(_persistent_buffers(model, ""))
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) and isinstance(module, nn.Module):
            inside = _persistent_buffers(module, f"{name}.")
            found.update((key, buffer) for key, buffer in inside if "base_layer" not in key.split("."))
    return found


def _persistent_buffers(model: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield prefix + (f"{path}.{name}" if path else name), buffer


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a phase's result consists of: trainable parameters and adapter buffers, of a model that is whole."""
    return {**trainable_parameters(model), **trained_buffers(model)}


def check_fit(targets: Mapping[str, Tensor], values: Mapping[str, Tensor], source: str) -> None:
    """Raises ValueError, naming `source` and the first difference, unless names and shapes are the same."""
    expected = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    found = {name: tuple(tensor.shape) for name, tensor in values.items()}
    if expected != found:
        name = next(name for name in [*expected, *found] if expected.get(name) != found.get(name))
        raise ValueError(
            f"{source} does not fit the model: {name} has shape {found.get(name)} there and {expected.get(name)} in "
            "the model. The run folder belongs to another configuration: remove it, or choose another runs.dir."
        )


@torch.no_grad()
def copy_into(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies into each target the value of its name."""
    for name, tensor in targets.items():
        tensor.copy_(values[name])
