"""LoRA of whose factors only some rows and columns, or entries, exist: Partial-LoRA's and Targeted-LoRA's adapter.

    import tombola
    from peft import get_peft_model

    config = tombola.MaskedLoraConfig(target_modules=["q_proj", "v_proj"], r=8, kept_rows=0.5, kept_cols=0.5)
    model = get_peft_model(model, config)

Only what is kept is stored and trained: nothing else of the factors can move, whatever the optimizer does. Source:
Damirchi et al. (2025), arXiv 2512.22495.
"""

from typing import Any, cast

from peft import PeftConfig
from torch import nn

from tombola.adapters.adaptable import linear_shape
from tombola.adapters.linear_tuner import LinearTuner
from tombola.adapters.masked_lora_config import MaskedLoraConfig, masked_lora_counts
from tombola.adapters.masked_lora_layer import MaskedLoraLinear


class MaskedLoraModel(LinearTuner):
    """A model with masked LoRA adapters; `get_peft_model` makes it."""

    prefix = "masked_lora_"
    tuner_layer_cls = MaskedLoraLinear

    def _check_layer(self, config: PeftConfig, key: str, target: nn.Module) -> None:
        masked_lora_counts(cast(MaskedLoraConfig, config), key, *linear_shape(target, key))

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: MaskedLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional: Any,
    ) -> None:
        if isinstance(target, MaskedLoraLinear):
            target.update_layer(adapter_name, peft_config, current_key)
            return
        layer = MaskedLoraLinear(target, adapter_name, peft_config, current_key)
        self._replace_module(parent, target_name, layer, target)
