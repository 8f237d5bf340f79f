"""RoSA, Robust Adaptation (Nikdan et al., 2024, arXiv 2401.04679), as a tuner of PEFT: LoRA and a sparse delta in one.

    import tombola
    from peft import get_peft_model

    model = get_peft_model(model, tombola.RosaConfig(target_modules=["q_proj", "v_proj"], r=8, density=0.006))

Where the sparse part's entries should be, `tombola.methods.Rosa` finds; without it they are random.
"""

from typing import Any, cast

from peft import PeftConfig
from torch import nn

from tombola.adapters.adaptable import linear_shape
from tombola.adapters.linear_tuner import LinearTuner
from tombola.adapters.rosa_config import RosaConfig
from tombola.adapters.rosa_layer import RosaLinear
from tombola.adapters.sparse_delta_config import SparseDeltaConfig
from tombola.adapters.sparse_delta_size import units_of


class RosaModel(LinearTuner):
    """A model with RoSA adapters; `get_peft_model` makes it."""

    prefix = "rosa_"
    tuner_layer_cls = RosaLinear

    def _check_layer(self, config: PeftConfig, key: str, target: nn.Module) -> None:
        rosa_entries(cast(RosaConfig, config), key, *linear_shape(target, key))

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: RosaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional: Any,
    ) -> None:
        count = rosa_entries(peft_config, current_key, *linear_shape(target, current_key))
        if isinstance(target, RosaLinear):
            target.update_layer(adapter_name, peft_config, current_key, count)
            return
        layer = RosaLinear(target, adapter_name, peft_config, current_key, count)
        self._replace_module(parent, target_name, layer, target)


def rosa_entries(config: RosaConfig, layer: str, out_features: int, in_features: int) -> int:
    """Entries of the layer's sparse part. Raises ValueError, naming the layer, for more than it has."""
    if not config.count and not config.density:
        return 0
    return units_of(SparseDeltaConfig(count=config.count, density=config.density), layer, out_features, in_features)


def rosa_layers(model: nn.Module) -> dict[str, RosaLinear]:
    """The adapted layers by their path in `model.named_modules()`, in its order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, RosaLinear)}


def write_rosa_counts(model: nn.Module, name: str = "default") -> None:
    """Sets the config's `count` to what each layer has, so that the saved adapter loads anywhere."""
    base = cast(RosaModel, model.base_model)
    config = cast(RosaConfig, base.peft_config[name])
    config.count = {path: layer.support(name).numel() for path, layer in rosa_layers(base.model).items()}
    config.density = None
