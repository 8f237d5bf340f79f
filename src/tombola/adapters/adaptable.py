"""What can be adapted, and under which name."""

from typing import cast

from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features
from peft.utils.quantization_utils import resolve_quantization_backend
from torch import nn


def linear_shape(target: nn.Module, key: str) -> tuple[int, int]:
    """The (out, in) of a layer to adapt.

    Raises ValueError unless it is an `nn.Linear` or a quantised linear layer that PEFT knows, bare or inside a tuner's.
    """
    layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    _check_linear(layer, key)
    in_features, out_features = _get_in_out_features(layer)
    return cast(int, out_features), cast(int, in_features)


def _check_linear(layer: nn.Module, key: str) -> None:
    # torch's own attention reads this one's weight and never calls it: an adapter would silently do nothing.
    read_not_called = type(layer) is nn.modules.linear.NonDynamicallyQuantizableLinear
    if isinstance(layer, nn.Linear) and not read_not_called:
        return
    backend = None if read_not_called else resolve_quantization_backend(layer)
    if backend is None or backend.layer_type != "linear":
        raise ValueError(
            f"the layer {key} is of type {type(layer).__name__}, which cannot be adapted: only linear layers "
            "(torch.nn.Linear, and quantised ones that PEFT knows) can. Narrow target_modules, or set exclude_modules"
        )


def check_adapter_name(name: str) -> None:
    """Raises ValueError for a name that torch's ModuleDict cannot take as a key."""
    if not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            f"{name!r} cannot be an adapter's name: it must not be empty, contain a dot, or be an attribute of "
            "torch.nn.ModuleDict, such as 'keys', 'values' or 'training'"
        )
