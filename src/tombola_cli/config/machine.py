"""What a config needs and this machine lacks: packages, data, weights. Looked for without importing what is heavy."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from tombola_cli.config.hub import data_fault, hub_fault
from tombola_cli.config.reach import unreachable


def missing(config: dict[str, Any]) -> list[str]:
    """A line for each thing that has to be installed, downloaded or pointed to before this config can train."""
    task, probes = config["task"], config.get("forgetting") or {}
    if task["kind"] == "probe":
        typed = f"task={task['name']}"
        ways = f"type forgetting=probes beside another task, or python eval.py run=ID {typed} for a finished run"
        return [f"{typed}: nothing is trained on it; {ways}"]
    lines = [*_launch_packages(config), *lacking_to_evaluate(config)]
    if "probes" in probes:
        lines += [*_probe_faults(probes, "forgetting=probes", "forgetting"), *_local_data(probes, "forgetting")]
    return lines


def lacking_to_evaluate(config: dict[str, Any]) -> list[str]:
    """A line for each thing that a model trained by this config needs to be asked its task."""
    task = config["task"]
    lines = [*_method_packages(config), *_local_data(task, "task")]
    if task["kind"] == "probe":
        lines += _probe_faults(task, f"task={task['name']}", "task")
    web_data, weights = _web_data(task), _weights(config["model"])
    if weights and web_data:  # one cause, mostly the network, so one line
        return [*lines, f"{weights}; task.data_dir=DIR for the data of task={task['name']}, not here either"]
    return [*lines, *filter(None, [web_data, weights])]


def _launch_packages(config: dict[str, Any]) -> Iterator[str]:
    kind, tracker = config["launch"]["kind"], config["log"]["tracker"]
    if kind in ("zero2", "zero3") and not _installed("deepspeed"):
        yield f'launch={kind}: DeepSpeed is not installed; pip install "tombola[deepspeed]", or take launch=ddp'
    if config["evaluation"]["generate"] == "vllm" and (fault := _vllm_fault(config["evaluation"]["vllm_python"])):
        yield fault
    if tracker in ("wandb", "trackio", "tensorboard") and not _installed(tracker):
        yield f'log={tracker}: {tracker} is not installed; pip install "tombola[{tracker}]", or take log=none'


def _method_packages(config: dict[str, Any]) -> Iterator[str]:
    if str(config["method"]["_target_"]).endswith(".Qlora") and not _installed("bitsandbytes"):
        yield 'method=qlora: bitsandbytes is not installed; pip install "tombola[quantised]", or take method=lora'


def _probe_faults(probes: dict[str, Any], typed: str, group: str) -> Iterator[str]:
    """lm-eval, and its data sets where no local copy is given."""
    if not _installed("lm_eval"):
        yield f'{typed}: lm-eval is not installed; pip install "tombola[eval]"'
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or _hugging_face_home() / "datasets")
    hub = [name for probe, name in probes["hub_datasets"].items() if probe in probes["probes"]]
    if probes.get("data_dir") or all((cache / name.replace("/", "___")).is_dir() for name in hub):
        return
    if reason := unreachable("https://huggingface.co"):
        what = f"{typed}: {_few(hub)} of the hub are not in the local cache, and {reason}"
        yield f"{what}; connect, or type {group}.data_dir=DIR for a local copy"


def _hugging_face_home() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HF_HOME") or Path(home) / "huggingface").expanduser()


def _local_data(task: dict[str, Any], group: str) -> Iterator[str]:
    if task["_target_"] is None:
        yield f"task={task['name']}: its loader is yet to come; plan=true works, and so do its tables"
    elif task.get("data_dir"):
        folder = Path(task["data_dir"])
        lacking = [name for name in _needed(task) if not (folder / name).is_file()]
        if not folder.is_dir():
            yield f"{group}.data_dir={folder}: there is no such folder; give one that has {_few(lacking)}"
        elif lacking:
            yield f"{group}.data_dir={folder}: {task['name']} reads {_few(lacking)}, not there; give its right folder"


def _web_data(task: dict[str, Any]) -> str | None:
    if task["_target_"] is None or task.get("data_dir") or not task.get("url"):
        return None
    if task["url"].startswith("hf://"):
        return data_fault(task)
    lacking = [name for name in _needed_of_web(task) if not cached_data(task["url"], name).is_file()]
    reason = unreachable(task["url"]) if lacking else None
    if reason is None:
        return None
    what = f"task={task['name']}: {_few(lacking)} of {task['url']} are not in the local cache, and {reason}"
    return f"{what}; connect, or type task.data_dir=DIR for a local copy"


def _needed(task: dict[str, Any]) -> list[str]:
    names = [name for name in task["files"] if name not in (task.get("optional_files") or ())]
    asked = task.get("probes")  # each has files of its own name
    return [name for name in names if name.partition(".")[0] in asked] if asked else names


def _needed_of_web(task: dict[str, Any]) -> list[str]:
    """The files at `task.url`, where those of a local folder have other names."""
    web = task.get("web")
    return [*web["train"], *web["dev"]] if web else _needed(task)


def cached_data(url: str, file: str) -> Path:
    """Where `tombola.tasks` keeps a downloaded file (importing it to ask would import torch; a test compares)."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tombola" / "data"
    return root / hashlib.sha256(f"{url.rstrip('/')}/{file}".encode()).hexdigest()[:16] / Path(file).name


def _weights(model: dict[str, Any]) -> str | None:
    if model.get("path"):
        folder = Path(model["path"])
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return None
        return f"model.path={folder}: expected a folder with config.json and *.safetensors, as save_pretrained writes"
    if model["source"] == "hub":
        return hub_fault(model)
    if model["source"] == "package" and not _packaged(model):
        return _without_package(model)
    return None


def _packaged(model: dict[str, Any]) -> bool:
    """Whether the package's file is there, or what was once converted from it (tombola.models.packaged keeps that)."""
    weights = model["weights"]
    cache = Path(os.environ.get("TOMBOLA_CACHE") or Path.home() / ".cache" / "tombola").expanduser()
    if (cache / f"{model['name']}-{weights['sha256'][:12]}").is_dir():
        return True
    try:
        return Path(str(distribution(weights["package"]).locate_file(weights["file"]))).is_file()
    except PackageNotFoundError:
        return False


def _without_package(model: dict[str, Any]) -> str | None:
    weights = model["weights"]
    install = f"pip install --no-deps {weights['package']}=={weights['version']}"
    here = f"model={model['name']}: the package with its weights is not installed; type {install}"
    if weights.get("quantisation"):  # the hub has other numbers
        return f"{here}, or take the hub's own weights with model.source=hub"
    fault = hub_fault(model)
    return f"{here}; or else: {fault}" if fault else None


def _vllm_fault(python: str | None) -> str | None:
    """vLLM pins torch and transformers, at times to others than ours, so it may have an environment of its own."""
    own = "python -m venv .venv-vllm && .venv-vllm/bin/pip install vllm"
    typed = "evaluation.vllm_python=.venv-vllm/bin/python"
    if python is None:
        if _installed("vllm"):
            return None
        return f"evaluation.generate=vllm: vLLM is not installed here; {own}, then type {typed}"
    program = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, timeout=60)
    except OSError as error:
        return f"evaluation.vllm_python={python}: cannot be run ({error.strerror}); give the Python of an environment"
    if done.returncode:
        return f"evaluation.vllm_python={python}: it has no vLLM; {python} -m pip install vllm"
    return None


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _few(names: list[str] | None) -> str:
    names = list(names or ())
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
