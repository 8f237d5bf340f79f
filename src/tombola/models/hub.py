"""Weights from the hub or from a local folder: safetensors and JSON only, by revision, with what was really read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tombola.models.checksum import sha256
from tombola.models.unavailable import unavailable

# No pickle (.bin, .pt, .pth) is ever fetched. spm.model, tokenizer.model: sentencepiece; *.txt: vocab, merges.
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model"]
UNWANTED = ["original/*", "onnx/*", "openvino/*", "runs/*", "coreml/*"]


def hub_folder(model: Mapping[str, Any]) -> tuple[Path, dict[str, str]]:
    """The snapshot of `model.repo` at `model.revision`, and its resolved commit. Raises ModelUnavailable."""
    place = f"{model['repo']} at revision {model['revision']}"
    try:
        folder = Path(
            snapshot_download(
                model["repo"], revision=model["revision"], allow_patterns=WANTED, ignore_patterns=UNWANTED
            )
        )
    except Exception as error:  # the hub's client lets its transport's own errors through: whatever it is, no weights
        raise unavailable(model, f"{place} {_reason(error)}") from error
    _require_safetensors(model, folder, place)
    return folder, {"source": "hub", "repo": model["repo"], "revision": folder.name}


def local_folder(model: Mapping[str, Any]) -> tuple[Path, dict[str, str]]:
    """The folder `model.path`, and a checksum over its weights. Raises ModelUnavailable."""
    folder = Path(model["path"]).expanduser()
    if not (folder / "config.json").is_file():
        raise unavailable(model, f"model.path={model['path']} is not a folder with a config.json")
    _require_safetensors(model, folder, f"model.path={model['path']}")
    checksums = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    return folder, {"source": "path", **{f"sha256:{name}": value for name, value in checksums.items()}}


def _require_safetensors(model: Mapping[str, Any], folder: Path, place: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    raise unavailable(
        model,
        f"{place} has no *.safetensors, and pickled weights are never loaded",
        first="name a revision that has them: model.revision=...",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return "is gated, and you are not logged in with an account that was granted access"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "was not found, or is private and you are not logged in (401)"
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return "is not in the local cache, and the hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
    return f"could not be fetched ({type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''})"
