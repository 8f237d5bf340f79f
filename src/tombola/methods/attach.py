"""From a host and a PEFT config to a model whose adapter starts the same way every time."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, cast

import torch
from omegaconf import OmegaConf
from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from tombola.methods.residual import is_pissa, remember_start

if TYPE_CHECKING:
    from tombola.models import Host


class AdapterRefused(ValueError):
    """An adapter's config does not fit the model's layers; the message says what to change."""


def attach(host: Host, config: PeftConfig, *, seed: int) -> PeftModel:
    """`host.net` with `config`'s adapter in it, trainable with the head; `config` itself is left as it was.

    The initial values are drawn from `seed` alone, and the global random state is put back: a run that resumes in a
    fresh process attaches the same adapter, and data order does not depend on how many numbers a tuner draws.
    Raises AdapterRefused where the tuner refuses the config.
    """
    completed = complete(config, host)
    devices = [host.net.device] if host.net.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        try:
            model = cast(PeftModel, get_peft_model(host.net, completed))
        except ValueError as error:
            raise AdapterRefused(f"{type(config).__name__}: {error}") from error
    # get_peft_model writes the folder that the weights came from, which is a cache on this machine.
    model.peft_config["default"].base_model_name_or_path = host.name
    if is_pissa(completed):
        remember_start(model)
    return model


def detach(model: PeftModel) -> None:
    """Take the adapter off: every layer is the host's own again, and so is a new head, with its values at the start."""
    net = model.get_base_model()
    for path, module in list(net.named_modules()):
        if isinstance(module, BaseTunerLayer):
            net.set_submodule(path, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            net.set_submodule(path, module.original_module)
    del net.peft_config  # or PEFT would warn that the next adapter is a second one


def complete(config: PeftConfig, host: Host) -> PeftConfig:
    """A plain copy of `config` with the task type and the head of the host where the config leaves them None.

    PEFT fills the head in for sequence classification and for nothing else: an image classifier's would stay frozen at
    its random start. Hydra's containers become plain ones, for PEFT writes the config as JSON after training.
    """
    completed = copy.deepcopy(config)
    for field in dataclasses.fields(completed):
        value = getattr(completed, field.name)
        if OmegaConf.is_config(value):
            setattr(completed, field.name, OmegaConf.to_container(value, resolve=True, throw_on_missing=True))
    if completed.task_type is None:
        completed.task_type = host.task_type
    if getattr(completed, "modules_to_save", ()) is None and host.head:
        completed.modules_to_save = list(host.head)  # type: ignore[attr-defined]
    return completed


def forget_shira_layers() -> None:
    """Let go of the layers that SHiRA's forward keeps alive.

    PEFT 0.21 caches "warned once" by layer object without a bound (`peft/tuners/shira/layer.py`), so that every SHiRA
    model of a process, base weights included, would stay in memory for good.
    """
    from peft.tuners.shira.layer import _warn_once_about_module_hooks

    _warn_once_about_module_hooks.cache_clear()
