"""Adapter folders that say nothing of the machine they were made on, and are the same bytes for the same values."""

from __future__ import annotations

from pathlib import Path

from peft import PeftConfig, PeftModel
from safetensors.torch import save_file
from torch import Tensor

ADAPTER_FILE = "adapter_model.safetensors"

_CARD = """---
base_model: {base}
library_name: peft
tags:
- {method}
- tombola
---

# {method} adapter for {base}

Trained with `tombola`. To load it:

```python
{imports}from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```
"""


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter as PEFT does, with a config in one fixed order and a model card of our own.

    The embeddings are never trained here; with PEFT's "auto" it would ask the hub about their size.
    """
    config = model.peft_config["default"]
    _fix_order(config)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    # PEFT's card names the folder that the base weights were read from.
    (folder / "README.md").write_text(_card(config), encoding="utf-8")


def replace_adapter(folder: Path, tensors: dict[str, Tensor], config: PeftConfig) -> None:
    """Put the same delta, written as another kind of adapter, in the place of the one that was saved in `folder`."""
    _fix_order(config)
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config.save_pretrained(str(folder))
    (folder / "README.md").write_text(_card(config), encoding="utf-8")


def _fix_order(config: PeftConfig) -> None:
    """Sets are written in hash order, which changes from process to process; PEFT appends the head to itself."""
    for name in ("target_modules", "exclude_modules"):
        value = getattr(config, name, None)
        if isinstance(value, set | list | tuple):
            setattr(config, name, sorted(value))
    heads = getattr(config, "modules_to_save", None)
    if heads:
        config.modules_to_save = sorted(set(heads))  # type: ignore[attr-defined]


def _card(config: PeftConfig) -> str:
    method = str(getattr(config.peft_type, "value", config.peft_type)).lower()
    ours = type(config).__module__.split(".")[0] == "tombola"
    imports = "import tombola  # registers the adapter with PEFT\n" if ours else ""
    return _CARD.format(base=config.base_model_name_or_path, method=method, imports=imports)
