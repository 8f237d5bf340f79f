"""Whole tensors into ZeRO's shards and back, through DeepSpeed's public accessors where it has them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

SCALAR = "step"  # the one key of torch's optimizers whose tensor is not of the parameter's shape
STAGE_3_ATTRIBUTES = ("_external_params", "_original_parameters", "all_parameters")  # beside ds_*, on every module


def load_values(parameter: nn.Parameter, value: Tensor) -> None:
    """Sets a parameter: the float32 copy that the optimizer updates, and the one that the model computes with."""
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    value = value.to(parameter.device)
    if hasattr(parameter, "ds_id"):
        safe_set_local_fp32_param(parameter, _shard(parameter, value.float()))
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
            parameter.copy_(value)
        return
    safe_set_full_fp32_param(parameter, value.float())
    with torch.no_grad():
        parameter.copy_(value)


def optimizer_state(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, zero: Any) -> dict[str, Tensor]:
    """The optimizer's tensors as `key/parameter name`; a scalar such as Adam's `step` is given to each parameter."""
    from deepspeed.utils import safe_get_full_optimizer_state

    flat = _flat_parameters(zero)[0]
    state: dict[str, Tensor] = {}
    _link_states(optimizer, zero)
    for key, value in optimizer.state.get(flat, {}).items():
        if isinstance(value, Tensor):
            for name, parameter in parameters.items():
                whole = value.clone() if key == SCALAR else safe_get_full_optimizer_state(parameter, key)
                state[f"{key}/{name}"] = whole
    return state


def load_optimizer_state(
    parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, zero: Any, state: Mapping[str, Tensor]
) -> None:
    """Sets the optimizer's tensors from whole ones."""
    optimizer.state.clear()
    for path, value in state.items():
        key = path.partition("/")[0]
        for flat in _flat_parameters(zero):
            scalar_device = flat.device if optimizer.defaults.get("fused") else "cpu"
            fresh = value.to(scalar_device, copy=True) if key == SCALAR else torch.zeros_like(flat)
            optimizer.state[flat].setdefault(key, fresh)
    _link_states(optimizer, zero)
    set_shards(parameters, state)


def set_shards(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Sets this rank's shards of the whole tensors in `state`, the steps aside."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    for path, value in state.items():
        key, _, name = path.partition("/")
        parameter = parameters[name]
        if key == SCALAR:
            continue
        if hasattr(parameter, "ds_id"):
            shard = _shard(parameter, value.to(parameter.device))
            safe_set_local_optimizer_state(parameter, shard, key)
        else:
            safe_set_full_optimizer_state(parameter, value.to(parameter.device), key)


def _link_states(optimizer: Optimizer, zero: Any) -> None:
    """Stage 2: shows each parameter its share of the state that there is now, if any.

    DeepSpeed 0.19 does so once, after the step of the first parameter group, when the other groups have no state yet.
    """
    if hasattr(zero, "_hp_optimizer_states_linked"):
        zero._hp_optimizer_states_linked = False
        if optimizer.state:
            zero._lazy_init_hp_params_optimizer_state()


def plain_again(model: nn.Module, destroy: Callable[[], Any]) -> None:
    """Makes the model's parameters whole and its modules plain; `destroy` ends the engine in between.

    The parameters are new objects, for DeepSpeed leaves hooks and attributes on the old ones. One is gathered at a
    time, so that no more memory is taken than the whole model needs.
    """
    fresh: dict[int, nn.Parameter] = {}
    for parameter in model.parameters():
        if parameter.requires_grad or hasattr(parameter, "ds_id"):
            fresh[id(parameter)] = nn.Parameter(_gathered(parameter), requires_grad=parameter.requires_grad)
    destroy()
    for module in model.modules():
        found = list(module._parameters.items())
        module._parameters = {name: fresh.get(id(parameter), parameter) for name, parameter in found}
        for name in [name for name in vars(module) if name.startswith("ds_") or name in STAGE_3_ATTRIBUTES]:
            delattr(module, name)


def _gathered(parameter: nn.Parameter) -> Tensor:
    if not hasattr(parameter, "ds_id"):
        return parameter.detach().clone()
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def _shard(parameter: Any, value: Tensor) -> Tensor:
    """This rank's piece of a stage-3 parameter, zero-padded as DeepSpeed pads the last."""
    size = parameter.ds_tensor.numel()
    flat = value.flatten()
    rank = torch.distributed.get_rank(parameter.ds_process_group)
    padded = torch.nn.functional.pad(flat, (0, size * math.ceil(flat.numel() / size) - flat.numel() + size))
    return padded[rank * size : (rank + 1) * size]


def _flat_parameters(zero: Any) -> list[Tensor]:
    """The float32 tensors that torch's optimizer sees: one a parameter group (stage 2) or sub-group (stage 3)."""
    return getattr(zero, "single_partition_of_fp32_groups", None) or zero.fp32_partitioned_groups_flat
