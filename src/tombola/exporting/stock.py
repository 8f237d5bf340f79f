"""What an adapter in one of PEFT's own forms is made of, beside the numbers of its layers."""

from pathlib import Path
from typing import Any, cast

from peft import LoraConfig, PeftModel, ShiraConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.utils import PeftType
from safetensors.torch import load_file, save_file
from torch import Tensor

ADAPTER = "default"  # the name that PEFT gives to a loaded model's only adapter
ADAPTER_FILE = "adapter_model.safetensors"
# How PEFT names the module that holds the base model.
BASE = "base_model.model."


def method_of(model: PeftModel) -> str:
    """The tuner's name, e.g. `sparse_delta`."""
    return str(_type_of(model).value).lower()


def common_settings(model: PeftModel) -> dict[str, Any]:
    """The settings that the stock config takes over from ours."""
    config = model.peft_config[ADAPTER]
    return {
        "modules_to_save": getattr(config, "modules_to_save", None),
        "task_type": config.task_type,
        "base_model_name_or_path": config.base_model_name_or_path,
        "inference_mode": True,
    }


def trained_in_full(model: PeftModel, adapter: Path) -> dict[str, Tensor]:
    """What the file of the saved adapter holds beside the adapter: the modules that were trained in full."""
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING[_type_of(model)]
    saved = load_file(adapter / ADAPTER_FILE)
    return {name: value for name, value in saved.items() if not any(p.startswith(prefix) for p in name.split("."))}


def write_stock(
    folder: Path, config: LoraConfig | ShiraConfig, paths: list[str], tensors: dict[str, Tensor], card: str
) -> None:
    """Writes the folder: the config, for the layers at those paths, the tensors and the card."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config.target_modules = sorted(paths)  # PEFT makes it a set, whose order changes from process to process
    config.save_pretrained(str(folder))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _type_of(model: PeftModel) -> PeftType:
    return cast(PeftType, model.peft_config[ADAPTER].peft_type)
