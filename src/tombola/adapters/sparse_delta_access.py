"""How methods reach the SparseDelta layers of a model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import nn

from tombola.adapters.sparse_delta_config import SparseDeltaConfig
from tombola.adapters.sparse_delta_layer import SparseDeltaLinear


def sparse_layers(model: nn.Module) -> dict[str, SparseDeltaLinear]:
    """The SparseDelta layers by their path in `model.named_modules()`, in the model's order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, SparseDeltaLinear)}


def values_parameter(path: str, name: str = "default") -> str:
    """Name, in `model.named_parameters()`, of the values of the layer at `path`."""
    return f"{path}.sparse_delta_values.{name}.weight"


def write_counts(model: nn.Module, name: str = "default") -> None:
    """Puts each layer's present count into the config, so that a model which loads the adapter has its shapes."""
    config = cast(SparseDeltaConfig, cast(Any, model).peft_config[name])
    layers = [layer for layer in sparse_layers(model).values() if name in layer.names()]
    config.count = {layer.path(name): layer.count(name) for layer in layers}
    config.density, config.support = None, "random"


@contextmanager
def awake(model: nn.Module, name: str = "default") -> Iterator[None]:
    """Inside, every layer with waiting values has them for its delta, overwritten by the present values.

    For forward and for gradients of activations: the parameters of those layers get none.
    """
    with ExitStack() as stack:
        for layer in sparse_layers(model).values():
            if name in layer.sparse_delta_waiting:
                stack.enter_context(layer.awake(name))
        yield
