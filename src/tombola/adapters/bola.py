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
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from torch import nn

from tombola.adapters.adaptable import check_adapter_name, linear_shape
from tombola.adapters.bola_config import BolaConfig
from tombola.adapters.bola_grid import balanced_grid, check_grid
from tombola.adapters.bola_layer import BolaLinear
from tombola.adapters.targets import DEFAULT_TARGETS


class BolaModel(BaseTuner):
    """A model with BoLA adapters; `get_peft_model` makes it."""

    prefix = "bola_"
    tuner_layer_cls = BolaLinear
    target_module_mapping = DEFAULT_TARGETS

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Adds an adapter. Raises ValueError for a name that torch's containers cannot hold."""
        check_adapter_name(adapter_name)
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        peft_config = cast(BolaConfig, peft_config)
        if peft_config.target_modules is None and model_config.get("model_type") not in self.target_module_mapping:
            raise ValueError(
                f"target_modules is not given, and no default is known for the model type "
                f"{model_config.get('model_type')!r} (only for {', '.join(sorted(self.target_module_mapping))}): "
                "name the linear layers to adapt, e.g. target_modules=['q_proj', 'v_proj'], or take 'all-linear'"
            )
        return super()._prepare_adapter_config(peft_config, model_config)

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """Refuses layers that cannot be adapted before the first one is replaced, so that the model stays whole."""
        config = cast(BolaConfig, _maybe_include_all_linear_layers(peft_config, model))
        inside_tuners: tuple[str, ...] = ()
        for key, module in model.named_modules():
            if key and not key.startswith(inside_tuners) and self._check_target_module_exists(config, key):
                _grid(config, key, module)
            if isinstance(module, BaseTunerLayer):
                inside_tuners += (f"{key}.",)

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

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """PEFT's own looks for a `weight` on what it puts back, which a compound head (RoBERTa's) has not."""
        if isinstance(new_module, BaseTunerLayer):
            super()._replace_module(parent, child_name, new_module, child)
        else:
            setattr(parent, child_name, new_module)


def _grid(config: BolaConfig, key: str, target: nn.Module) -> tuple[int, int]:
    """The layer's (in_divs, out_divs). Raises ValueError for other than linear layers and a grid that does not fit."""
    out_features, in_features = linear_shape(target, key)
    if config.in_divs is None or config.out_divs is None:
        return balanced_grid(out_features, in_features)
    grid = (config.in_divs, config.out_divs)
    check_grid(grid, key, out_features, in_features)
    return grid
