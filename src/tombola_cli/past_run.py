"""A run of before, named by as much of its id as no other run has."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from tombola_cli.config.choices import CONF
from tombola_cli.config.nearest import did_you_mean
from tombola_cli.run_folder import CONFIG_FILE

PIECE_BYTES = 1 << 22


class PastRunError(ValueError):
    """No such run, or one that is not there yet; the message says what to type."""


def runs_folder(given: str | None, conf_dir: Path = CONF) -> Path:
    """Where the runs are: the folder that was given, or else train.py's."""
    return Path(given or yaml.safe_load((conf_dir / "config.yaml").read_text())["runs"]["dir"])


def find_run(name: str, runs: Path) -> Path:
    """The folder of the one run whose id is, or else begins with, `name`. Raises PastRunError for none or several."""
    ids = sorted(path.parent.name for path in runs.glob(f"*/{CONFIG_FILE}"))
    found = [name] if name in ids else [one for one in ids if one.startswith(name)]
    if len(found) == 1:
        return runs / found[0]
    if found:
        raise PastRunError(f"run={name} fits {len(found)} runs, say more of it: {', '.join(found[:6])}")
    raise PastRunError(
        f"run={name}: there is no such run in {runs}; " + (did_you_mean(name, ids) if ids else "it has none")
    )


def run_config(folder: Path) -> dict[str, Any]:
    """What the run was asked for: the resolved config with its `id`, `sources` and `command`."""
    return dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))


def checksum(saved: Path) -> str:
    """SHA-256 over the names and bytes of the weight files in a saved adapter or checkpoint."""
    digest = hashlib.sha256()
    for path in sorted(saved.rglob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def unfinished(folder: Path, config: dict[str, Any]) -> PastRunError:
    """The error for a run that ended before it was done."""
    command = shlex.join(["python", *config["command"]])
    return PastRunError(f"{folder.name} has not finished training; go on with: {command}")
