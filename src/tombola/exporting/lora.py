"""A low-rank delta of our own kinds as a stock LoRA adapter (Hu et al., 2021, arXiv 2106.09685), which PEFT loads by
itself.

What is not kept of a factor becomes explicit zeros, as does a row outside its group. A layer says its whole factors and
alpha by `low_rank`.
"""

from pathlib import Path
from typing import Protocol, cast

from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from tombola.adapters import LowRank, MaskedLoraLinear, PartitionedLoraLinear
from tombola.exporting.stock import ADAPTER, BASE, common_settings, method_of, trained_in_full, write_stock

_CARD = """---
base_model: {base}
library_name: peft
tags:
- lora
---

# Low-rank adapter for {base}, as a LoRA adapter

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```

Trained with `tombola` as `{method}`, of rank {r}. The zeros in its factors were never trained.
"""


class LowRankLayer(Protocol):
    """A tuner layer whose delta is alpha / r * B A."""

    def low_rank(self, name: str) -> LowRank:
        """A (r, in), B (out, r) and alpha."""
        ...


def write_lora(model: PeftModel, adapter: Path, folder: Path) -> None:
    """Write the adapter of `model`, which was read from `adapter`, in LoRA's form, with its head.

    Raises ValueError for an adapter whose delta is no product of two factors.
    """
    method = method_of(model)
    factors = {path: layer.low_rank(ADAPTER) for path, layer in _low_rank_layers_of(model, method).items()}
    tensors = trained_in_full(model, adapter)
    for path, (a, b, _) in factors.items():
        tensors[f"{BASE}{path}.lora_A.weight"] = a.cpu().contiguous()
        tensors[f"{BASE}{path}.lora_B.weight"] = b.cpu().contiguous()
    ((r, alpha),) = {(len(one.a), one.alpha) for one in factors.values()}  # one config made all layers
    config = LoraConfig(r=r, lora_alpha=cast(int, alpha), target_modules=list(factors), **common_settings(model))
    base = model.peft_config[ADAPTER].base_model_name_or_path
    write_stock(folder, config, list(factors), tensors, _CARD.format(base=base, method=method, r=r))


def _low_rank_layers_of(model: PeftModel, method: str) -> dict[str, LowRankLayer]:
    net = model.get_base_model()
    layers = {path: module for path, module in net.named_modules() if isinstance(module, BaseTunerLayer)}
    if not all(isinstance(layer, MaskedLoraLinear | PartitionedLoraLinear) for layer in layers.values()):
        raise ValueError(
            f"{method}'s delta is no product of two factors, which format=lora holds: take format=merged or "
            "format=native"
        )
    return {path: cast(LowRankLayer, layer) for path, layer in layers.items()}
