"""What the tuners of linear layers here share on the model's side of PEFT."""

from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from torch import nn

from tombola.adapters.adaptable import check_adapter_name
from tombola.adapters.targets import DEFAULT_TARGETS


class LinearTuner(BaseTuner):
    """A tuner that knows its default layers and refuses, before it touches the model, what it cannot adapt."""

    target_module_mapping = DEFAULT_TARGETS

    def _check_layer(self, config: PeftConfig, key: str, target: nn.Module) -> None:
        """Raises ValueError, naming the layer, where the config does not fit it."""
        raise NotImplementedError

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Adds an adapter. Raises ValueError for a name that torch's containers cannot hold."""
        check_adapter_name(adapter_name)
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        if (
            getattr(peft_config, "target_modules", None) is None
            and model_config.get("model_type") not in self.target_module_mapping
        ):
            raise ValueError(
                f"target_modules is not given, and no default is known for the model type "
                f"{model_config.get('model_type')!r} (only for {', '.join(sorted(self.target_module_mapping))}): "
                "name the linear layers to adapt, e.g. target_modules=['q_proj', 'v_proj'], or take 'all-linear'"
            )
        return super()._prepare_adapter_config(peft_config, model_config)

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """Refuses layers that cannot be adapted before the first one is replaced, so that the model stays whole."""
        config = _maybe_include_all_linear_layers(peft_config, model)
        inside_tuners: tuple[str, ...] = ()
        for key, module in model.named_modules():
            if key and not key.startswith(inside_tuners) and self._check_target_module_exists(config, key):
                self._check_layer(config, key, module)
            if isinstance(module, BaseTunerLayer):
                inside_tuners += (f"{key}.",)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """PEFT's own looks for a `weight` on what it puts back, which a compound head (RoBERTa's) has not."""
        if isinstance(new_module, BaseTunerLayer):
            super()._replace_module(parent, child_name, new_module, child)
        else:
            setattr(parent, child_name, new_module)
