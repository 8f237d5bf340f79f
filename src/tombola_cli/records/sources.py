"""Where a run's weights and data come from, as strings that change when the bytes do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
# What transformers reads from a model folder; a README beside it changes nothing.
MODEL_FILES = (".safetensors", ".json", ".txt", ".model", ".jinja")


class SourceError(ValueError):
    """Weights or data that are named but not there; the message says which and what to set."""


def sources(config: Mapping[str, Any]) -> dict[str, str]:
    """`{"weights": ..., "data": ...}` of a composed config: the part of an identity that no config field tells.

    Where forgetting is measured, `probes` too.

    Local files are read whole, since a path says nothing of its bytes.

    Raises:
        SourceError: a local folder that the config names lacks what should be in it.
    """
    found = {"weights": weights_source(config["model"], config["seed"]), "data": data_source(config["task"])}
    if probes := forgetting_probes(config):
        found["probes"] = data_source(probes, "forgetting")
    return found


def forgetting_probes(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The probes that are asked before and after training, as a task's fields; None where there are none."""
    probes = config.get("forgetting")  # records from before it could be measured have no such field
    return probes if probes and probes["name"] != "none" else None


def weights_source(model: Mapping[str, Any], seed: int) -> str:
    """The checksum of local or packaged weights, `repo@revision` of the hub, or what random weights are drawn from."""
    if model.get("path"):
        return f"sha256:{_model_folder_hash(Path(model['path']).expanduser())}"
    if model["source"] == "package":
        return f"sha256:{model['weights']['sha256']}"
    if model["source"] == "random":
        architecture = json.dumps(model["architecture"], sort_keys=True, separators=(",", ":"))
        return f"random:seed={seed},architecture={hashlib.sha256(architecture.encode()).hexdigest()[:16]}"
    return f"{model['repo']}@{model['revision']}"


def data_source(task: Mapping[str, Any], group: str = "task") -> str:
    """The checksum of the files under `task.data_dir`, else `repo@revision`, else the version of embedded data.

    `group` is the task's place in the config, for the error.
    """
    if task.get("data_dir"):
        return f"sha256:{_task_files_hash(task, group)}"
    origin = task.get("repo") or task.get("url")
    if origin:
        return f"{origin}@{task['revision']}" if task.get("revision") else str(origin)
    return f"embedded:{task['name']}@{task['version']}"


def _model_folder_hash(folder: Path) -> str:
    if not folder.is_dir():
        raise SourceError(f"model.path: there is no folder {folder}; give a folder with config.json and *.safetensors")
    files = sorted(path for path in folder.iterdir() if path.suffix in MODEL_FILES and path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise SourceError(f"model.path: no *.safetensors in {folder}; save the model with save_pretrained(DIR)")
    return _combined_hash((path.name, path) for path in files)


def _task_files_hash(task: Mapping[str, Any], group: str) -> str:
    """Over every file that the loader may read and that is there, so that none can change unnoticed."""
    folder = Path(task["data_dir"]).expanduser()
    names = {*(task.get("files") or ()), *filter(None, [task.get("train_file")])}
    if probes := task.get("probes"):  # each has files of its own name
        names = {name for name in names if name.partition(".")[0] in probes}
    if not names:
        raise SourceError(f"task.data_dir: {task['name']} brings its own data and reads no files; leave data_dir out")
    there = sorted(name for name in names if (folder / name).is_file())
    missing = sorted(names.difference(there, task.get("optional_files") or ()))
    if missing:
        listed = ", ".join(missing)
        raise SourceError(
            f"{group}.data_dir: {task['name']} reads {listed}, not found under {folder}; give another folder"
        )
    return _combined_hash((name, folder / name) for name in there)


def _combined_hash(files: Iterable[tuple[str, Path]]) -> str:
    """One SHA-256 over names and contents, in the manner of `sha256sum * | sha256sum`."""
    lines = [f"{_file_hash(path)}  {name}\n" for name, path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
