"""Block-wise Lottery Ticket Adaptation (BoLA) as a tuner of PEFT.

Each adapted weight is cut into a grid of blocks. Every one of k candidates draws the block with its highest score, and
its values are added there; scores and values are trained together, the scores through a straight-through gradient.

    import tombola
    from peft import PeftModel, get_peft_model

    model = get_peft_model(model, tombola.BolaConfig(target_modules=["q_proj", "v_proj"]))
    ...
    model.save_pretrained(folder)
    PeftModel.from_pretrained(base, folder)

A process that loads a saved adapter must `import tombola` first: PEFT knows only the methods that are registered, and
ends with `KeyError: 'BOLA'` otherwise.
"""

from typing import Any, cast

from peft import PeftConfig
from torch import nn

from tombola.adapters.adaptable import linear_shape
from tombola.adapters.bola_config import BolaConfig
from tombola.adapters.bola_grid import balanced_grid, check_grid
from tombola.adapters.bola_layer import BolaLinear
from tombola.adapters.linear_tuner import LinearTuner


class BolaModel(LinearTuner):
    """A model with BoLA adapters; `get_peft_model` makes it."""

    prefix = "bola_"
    tuner_layer_cls = BolaLinear

    def _check_layer(self, config: PeftConfig, key: str, target: nn.Module) -> None:
        _grid(cast(BolaConfig, config), key, target)

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: BolaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional: Any,
    ) -> None:
        grid = _grid(peft_config, current_key, target)
        if isinstance(target, BolaLinear):
            target.update_layer(adapter_name, peft_config, grid)
            return
        layer = BolaLinear(target, adapter_name, peft_config, grid)
        self._replace_module(parent, target_name, layer, target)


def _grid(config: BolaConfig, key: str, target: nn.Module) -> tuple[int, int]:
    """The layer's (in_divs, out_divs). Raises ValueError for other than linear layers and a grid that does not fit."""
    out_features, in_features = linear_shape(target, key)
    if config.in_divs is None or config.out_divs is None:
        return balanced_grid(out_features, in_features)
    grid = (config.in_divs, config.out_divs)
    check_grid(grid, key, out_features, in_features)
    return grid
