"""Any sparse delta as a stock SHiRA adapter (Bhardwaj et al., 2024, arXiv 2406.13175), which PEFT loads by itself.

SHiRA keeps single entries of each weight, r * (out + in) of them with one r for all layers. So r is the smallest that
holds the fullest layer, and the other layers are filled up with explicit zeros. Scale, gate and scores are multiplied
into the values.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float, Int
from peft import PeftModel, ShiraConfig
from torch import Tensor

from tombola.exporting.sparse import sparse_layers_of
from tombola.exporting.stock import ADAPTER, BASE, common_settings, method_of, trained_in_full, write_stock

_CARD = """---
base_model: {base}
library_name: peft
tags:
- shira
---

# Sparse adapter for {base}, as a SHiRA adapter

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```

Trained with `tombola` as `{method}`. Each layer has as many entries as the fullest one needs (r = {r}): the rest are
zeros at places that were never trained.
"""


def write_shira(model: PeftModel, adapter: Path, folder: Path) -> None:
    """Write the adapter of `model`, which was read from `adapter`, in SHiRA's form, with its head.

    Raises ValueError for an adapter whose delta is dense, or has more entries than SHiRA can hold in some layer.
    """
    method = method_of(model)
    entries: dict[str, tuple[Tensor, Tensor]] = {}  # places in the flat weight, values
    shapes: dict[str, tuple[int, int]] = {}
    for path, layer in sparse_layers_of(model, method).items():
        delta = layer.get_delta_weight(ADAPTER).detach().float().cpu()
        index = delta.flatten().nonzero().flatten()
        entries[path], shapes[path] = (index, delta.flatten()[index]), (delta.shape[0], delta.shape[1])
    r = _rank({path: len(index) for path, (index, _) in entries.items()}, shapes)
    tensors = trained_in_full(model, adapter)
    for path, (index, values) in entries.items():
        index, values = _filled(index, values, r * sum(shapes[path]), math.prod(shapes[path]))
        columns = shapes[path][1]
        tensors[f"{BASE}{path}.shira_indices"] = torch.stack([index // columns, index % columns]).int()
        tensors[f"{BASE}{path}.shira_weight"] = values
    # Any mask type but "random": PEFT then draws no mask of its own before it reads the saved one.
    config = ShiraConfig(r=r, mask_type="saved", target_modules=list(shapes), **common_settings(model))  # type: ignore[arg-type]
    base = model.peft_config[ADAPTER].base_model_name_or_path
    write_stock(folder, config, list(shapes), tensors, _CARD.format(base=base, method=method, r=r))


def _rank(counts: dict[str, int], shapes: dict[str, tuple[int, int]]) -> int:
    """SHiRA's r. Raises ValueError where no r holds every layer."""
    r = max(1, *(math.ceil(count / sum(shapes[path])) for path, count in counts.items()))
    for path, (rows, columns) in shapes.items():
        if r * (rows + columns) > rows * columns:
            fullest = max(counts, key=lambda one: counts[one] / sum(shapes[one]))
            raise ValueError(
                f"too dense for SHiRA's form, in which every layer has r * (out + in) entries: {fullest} has "
                f"{counts[fullest]:,}, which takes r={r}, and {path} with {rows} x {columns} has no room for "
                f"{r * (rows + columns):,}. Export it with format=merged or format=native"
            )
    return r


def _filled(
    index: Int[Tensor, "n"], values: Float[Tensor, "n"], count: int, size: int
) -> tuple[Int[Tensor, "count"], Float[Tensor, "count"]]:
    """The entries, and zeros at the first unused places, `count` in all, by place."""
    free = torch.ones(size, dtype=torch.bool)
    free[index] = False
    added = free.nonzero().flatten()[: count - len(index)]
    places, order = torch.cat([index, added]).sort()
    return places, torch.cat([values, values.new_zeros(len(added))])[order]
