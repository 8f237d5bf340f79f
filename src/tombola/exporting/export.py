"""From the adapter that a run saved to a folder in one of four forms."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from peft import PeftConfig, PeftModel
from peft.utils import PeftType

from tombola.exporting.lora import write_lora
from tombola.exporting.merged import write_merged
from tombola.exporting.shira import write_shira
from tombola.models import Host, load_host

STOCK = {"shira": write_shira, "lora": write_lora}


def export(adapter: Path, form: str, out: Path, config: Mapping[str, Any]) -> None:
    """Writes `out`, whole or not at all, from the PEFT adapter in the folder `adapter`.

    `native` is the adapter as it is, `shira` and `lora` are stock adapters of PEFT, `merged` is a plain transformers
    checkpoint.
    `config` is the run's: it says which base model the adapter belongs to. Raises ValueError where the adapter does not
    fit the form, ModelUnavailable where the base model cannot be had.
    """
    if form == "native" or form == _kind(adapter):
        return _put(out, lambda part: shutil.copytree(adapter, part))
    host = _host(config)
    model = cast(PeftModel, PeftModel.from_pretrained(host.net, str(adapter)).eval())
    if form in STOCK:
        return _put(out, lambda part: STOCK[form](model, adapter, part))
    return _put(out, lambda part: write_merged(model, host.processor, part))


def _kind(adapter: Path) -> str:
    return str(cast(PeftType, PeftConfig.from_pretrained(str(adapter)).peft_type).value).lower()


def _host(config: Mapping[str, Any]) -> Host:
    task = config["task"]
    return load_host(config["model"], kind=task["kind"], labels=task["labels"], seed=config["seed"])


def _put(out: Path, write: Callable[[Path], object]) -> None:
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    write(part)
    part.rename(out)
