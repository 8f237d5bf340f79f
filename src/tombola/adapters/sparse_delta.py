"""SparseDelta: values at chosen elements or tiles of a frozen weight, as a tuner of PEFT.

    import tombola
    from peft import PeftModel, get_peft_model

    model = get_peft_model(model, tombola.SparseDeltaConfig(target_modules=["q_proj", "v_proj"], density=0.01))
    ...
    model.save_pretrained(folder)
    PeftModel.from_pretrained(base, folder)

Only the chosen coordinates are stored and trained: nothing else of the delta can move, whatever the optimizer does. A
method that looks for better coordinates moves the support; `write_counts` then makes what it saved load anywhere.
"""

from typing import Any, cast

from peft import PeftConfig
from torch import nn

from tombola.adapters.adaptable import linear_shape
from tombola.adapters.linear_tuner import LinearTuner
from tombola.adapters.sparse_delta_config import SparseDeltaConfig
from tombola.adapters.sparse_delta_layer import SparseDeltaLinear
from tombola.adapters.sparse_delta_size import units_of


class SparseDeltaModel(LinearTuner):
    """A model with SparseDelta adapters; `get_peft_model` makes it."""

    prefix = "sparse_delta_"
    tuner_layer_cls = SparseDeltaLinear

    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: Any, low_cpu_mem_usage: bool = False, **kwargs: Any
    ) -> None:
        """Adds an adapter; with `low_cpu_mem_usage` nothing is drawn, for a saved adapter's numbers will be put in."""
        self._empty = low_cpu_mem_usage
        super().inject_adapter(model, adapter_name, *args, low_cpu_mem_usage=low_cpu_mem_usage, **kwargs)

    def _check_layer(self, config: PeftConfig, key: str, target: nn.Module) -> None:
        units_of(cast(SparseDeltaConfig, config), key, *linear_shape(target, key))

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: SparseDeltaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional: Any,
    ) -> None:
        units = units_of(peft_config, current_key, *linear_shape(target, current_key))
        if isinstance(target, SparseDeltaLinear):
            target.update_layer(adapter_name, peft_config, current_key, units, empty=self._empty)
            return
        layer = SparseDeltaLinear(target, adapter_name, peft_config, current_key, units, empty=self._empty)
        self._replace_module(parent, target_name, layer, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """PEFT's widening of 16-bit adapters, which leaves alone values that are 16-bit on purpose."""
        config = cast(SparseDeltaConfig, self.peft_config[adapter_name])
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype and config.values_dtype == "float32")
