"""Load a base model of `conf/model`, frozen, with its processor and a fresh head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tombola.models.architecture import AUTO_CLASS, TASK_TYPE, differences, head_options, net_config
from tombola.models.head import head_modules, start_head
from tombola.models.host import Host
from tombola.models.hub import hub_folder, local_folder
from tombola.models.packaged import packaged_folder
from tombola.models.processors import agree_on_padding, read_processor, tiny_processor
from tombola.models.unavailable import unavailable

# The base weights of the tiny models are the same in every run; a run's seed draws the head and the adapter.
RANDOM_BASE_SEED = 0


def load_host(model: Mapping[str, Any], *, kind: str, labels: int, seed: int, device: str = "cpu") -> Host:
    """The model of one `conf/model` file, frozen and in evaluation mode, on `device`.

    `kind` and `labels` are the task's: an encoder gets a head of `labels` outputs, drawn from `seed` alone and left
    trainable. The global random state is what it was before. Raises ModelUnavailable when the weights cannot be had,
    ValueError for a task that the model cannot answer.
    """
    head = head_modules(model)
    options = head_options(model, kind, labels)
    with torch.random.fork_rng(devices=[]), quiet():
        drawn = model["source"] == "random" and not model["path"]
        net, processor, provenance = _random(model, options) if drawn else _read(model, options)
    start_head(net, head, seed)
    net.requires_grad_(False)
    for name in head:
        net.get_submodule(name).requires_grad_(True)
    if model["role"] == "decoder":
        agree_on_padding(net, processor)
    net.eval().to(torch.device(device))  # type: ignore[arg-type]  # transformers' wrapper hides the signature
    return Host(
        net=net,
        processor=processor,
        role=model["role"],
        task_type=TASK_TYPE[model["role"]],
        head=head,
        name=_known_as(model),
        provenance=provenance,
    )


def _random(model: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[PreTrainedModel, Any, dict[str, str]]:
    torch.manual_seed(RANDOM_BASE_SEED)
    net = AUTO_CLASS[model["role"]].from_config(net_config(model, options), dtype=getattr(torch, model["dtype"]))
    return net, tiny_processor(model), {"source": f"random, seed {RANDOM_BASE_SEED}"}


def _read(model: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[PreTrainedModel, Any, dict[str, str]]:
    folder, provenance = _folder(model)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        for name, value in options.items():  # one by one: a checkpoint's own number of classes gives way
            setattr(config, name, value)
        _require_same_shape(model, config)
        net, report = AUTO_CLASS[model["role"]].from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, model["dtype"]),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a checkpoint's own head may have other classes; ours is drawn anew
            output_loading_info=True,
        )
        processor = read_processor(model, folder)
    except (OSError, SafetensorError) as error:
        raise unavailable(model, f"its files cannot be read ({str(error).strip().splitlines()[0]})") from error
    _require_whole(model, report)
    return net, processor, provenance


def _folder(model: Mapping[str, Any]) -> tuple[Path, dict[str, str]]:
    if model["path"]:
        return local_folder(model)
    return packaged_folder(model) if model["source"] == "package" else hub_folder(model)


def _require_same_shape(model: Mapping[str, Any], config: Any) -> None:
    if found := differences(model, config):
        raise unavailable(
            model, f"the weights are of another architecture than conf/model/{model['name']}.yaml: {'; '.join(found)}"
        )


def _require_whole(model: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    mismatched = {entry[0] for entry in report["mismatched_keys"]}
    beside_head = sorted(
        name for name in {*report["missing_keys"], *mismatched} if not name.startswith(head_modules(model))
    )
    if beside_head:
        raise unavailable(
            model, f"the weights lack {', '.join(beside_head[:3])} (of {len(beside_head)} missing tensors)"
        )


def _known_as(model: Mapping[str, Any]) -> str:
    ours_alone = model["source"] == "package" and model["weights"]["quantisation"]
    return str(model["name"] if ours_alone or not model["repo"] else model["repo"])


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no report on new heads while transformers loads: we check that report ourselves."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
