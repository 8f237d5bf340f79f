"""An adapter on a model without values: what it adds to each layer, in a second for eight billion parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.utils import instantiate
from peft import LoraConfig, PeftConfig, PeftModel, ShiraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Adapted:
    """The adapted layers by their path, what the adapter's file holds of each, and the names they were asked by."""

    layers: dict[str, Any]  # BaseTunerLayer, which is no nn.Module to a type checker
    stored: dict[str, int]
    targets: tuple[str, ...]


def attach_empty(
    net: PreTrainedModel, config: Mapping[str, Any], head: tuple[str, ...], *, on_residual: bool = False
) -> Adapted:
    """`net`, on the meta device, with the adapter of a PEFT config given by its `_target_` and fields.

    `on_residual`: the method trains on what the adapter leaves of the weights, which the config does not show.
    """
    prepared = _without_values(instantiate(dict(config), _convert_="all"))
    if head and getattr(prepared, "modules_to_save", ()) is None:
        prepared.modules_to_save = list(head)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 for a property that the latter has renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        model = get_peft_model(net, prepared, low_cpu_mem_usage=True)  # skips what needs values: PiSSA's decomposition
    assert isinstance(model, PeftModel)
    layers: dict[str, Any] = {
        path: module for path, module in model.named_modules() if isinstance(module, BaseTunerLayer)
    }
    asked = getattr(prepared, "target_modules", None) or ()
    targets = (asked,) if isinstance(asked, str) else tuple(asked)
    per_value = 2 if on_residual else _numbers_per_value(prepared)
    return Adapted(layers, _stored(model, layers, per_value), targets)


def _without_values(config: PeftConfig) -> PeftConfig:
    # SHiRA draws its mask with `nonzero`, which needs values; how many entries it draws does not depend on which.
    if isinstance(config, ShiraConfig):
        config.mask_fn = None  # type: ignore[assignment]
    return config


def _numbers_per_value(config: PeftConfig) -> int:
    """Numbers in the saved file for each value of the adapter here.

    PiSSA (and MiLoRA, see `on_residual`) is saved as a plain LoRA of twice the rank. SHiRA saves a row and a column
    beside each value, from a plain dict that stays empty without a mask.
    """
    if isinstance(config, LoraConfig) and str(config.init_lora_weights).startswith("pissa"):
        return 2
    return 3 if isinstance(config, ShiraConfig) else 1


def _stored(model: PeftModel, layers: Mapping[str, Any], per_value: int) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        if name.endswith(".lora_dash_c.weight"):
            continue  # multiplied into a factor when it is saved
        path = name
        while path and path not in layers:
            path = path.rpartition(".")[0]
        sizes[path] = sizes.get(path, 0) + per_value * value.numel()
    return sizes
