"""PiLoRA's adapter as a tuner of PEFT: LoRA with a high rank for the rows that matter and a low one for the others.

    import tombola
    from peft import get_peft_model

    config = tombola.PartitionedLoraConfig(target_modules=["q_proj", "v_proj"], r=32, r_minor=2, dominant=0.5)
    model = get_peft_model(model, config)

Which rows matter, `tombola.methods.Pilora` finds; without it they are random.
"""

from typing import Any, cast

from peft import PeftConfig
from torch import nn

from tombola.adapters.adaptable import linear_shape
from tombola.adapters.linear_tuner import LinearTuner
from tombola.adapters.partitioned_lora_config import PartitionedLoraConfig, dominant_count
from tombola.adapters.partitioned_lora_layer import PartitionedLoraLinear


class PartitionedLoraModel(LinearTuner):
    """A model with partitioned LoRA adapters; `get_peft_model` makes it."""

    prefix = "partitioned_lora_"
    tuner_layer_cls = PartitionedLoraLinear

    def _check_layer(self, config: PeftConfig, key: str, target: nn.Module) -> None:
        dominant_count(cast(PartitionedLoraConfig, config), key, linear_shape(target, key)[0])

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: PartitionedLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional: Any,
    ) -> None:
        rows = dominant_count(peft_config, current_key, linear_shape(target, current_key)[0])
        if isinstance(target, PartitionedLoraLinear):
            target.update_layer(adapter_name, peft_config, current_key, rows)
            return
        layer = PartitionedLoraLinear(target, adapter_name, peft_config, current_key, rows)
        self._replace_module(parent, target_name, layer, target)


def partitioned_lora_layers(model: nn.Module) -> dict[str, PartitionedLoraLinear]:
    """The adapted layers by their path in `model.named_modules()`, in its order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, PartitionedLoraLinear)}
