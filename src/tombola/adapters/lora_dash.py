"""LoRA-Dash (Si et al., 2024, arXiv 2409.01035) as a tuner of PEFT: LoRA, and numbers along directions of the weight.

    import tombola
    from peft import get_peft_model

    model = get_peft_model(model, tombola.LoraDashConfig(target_modules=["q_proj", "v_proj"], r=8))
    ...                                         # train for a hundred steps: so far it is LoRA
    tombola.adapters.choose_directions(model)   # and go on

`tombola.methods.LoraDash` does this, and saves what it trained as a plain LoRA.
"""

from typing import Any, cast

from peft import PeftConfig
from torch import nn

from tombola.adapters.adaptable import linear_shape
from tombola.adapters.linear_tuner import LinearTuner
from tombola.adapters.lora_dash_config import LoraDashConfig
from tombola.adapters.lora_dash_layer import LoraDashLinear


class LoraDashModel(LinearTuner):
    """A model with LoRA-Dash adapters; `get_peft_model` makes it."""

    prefix = "lora_dash_"
    tuner_layer_cls = LoraDashLinear

    def _check_layer(self, config: PeftConfig, key: str, target: nn.Module) -> None:
        wanted = cast(LoraDashConfig, config).directions
        rows, columns = linear_shape(target, key)
        if wanted > min(rows, columns):
            raise ValueError(
                f"directions={wanted} is more than the {min(rows, columns)} that the layer {key} has, whose weight has "
                f"{rows} rows and {columns} columns: lower directions, or narrow target_modules"
            )

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: LoraDashConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional: Any,
    ) -> None:
        if isinstance(target, LoraDashLinear):
            target.update_layer(adapter_name, peft_config)
            return
        self._replace_module(parent, target_name, LoraDashLinear(target, adapter_name, peft_config), target)


def choose_directions(model: nn.Module, name: str = "default") -> None:
    """Puts the directions of every adapted layer where its low-rank part has changed the weight most for its size."""
    for module in model.modules():
        if isinstance(module, LoraDashLinear):
            module.choose_directions(name)
