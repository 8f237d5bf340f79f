"""A plain transformers checkpoint: the adapter is in the weights, and neither PEFT nor this package is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedModel


def write_merged(model: PeftModel, processor: Any, folder: Path) -> None:
    """Merge the adapter into its base model, and save that with its tokenizer or image processor.

    The weights keep the base model's dtype. Raises ValueError when a merged weight is not finite.
    """
    net = _unwrapped(model)
    net.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))


def _unwrapped(model: PeftModel) -> PreTrainedModel:
    """The base model with the adapter in its weights and its head in place.

    PEFT 0.21's own `merge_and_unload` looks for a `weight` on the head, which a head of several layers has not.
    """
    net = cast(PreTrainedModel, model.get_base_model())
    model.merge_adapter(safe_merge=True)
    for path, module in list(net.named_modules()):
        if isinstance(module, BaseTunerLayer):
            net.set_submodule(path, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            net.set_submodule(path, module.modules_to_save[model.active_adapter])
    return net
