"""A phase's state on disk, whole and atomic: safetensors and JSON, no pickle.

`checkpoints/<phase>-<step>/` while a phase runs, `phases/<phase>/` once it has finished.
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tombola.training.archive import remove_torn, write_folder
from tombola.training.protocol import History

KEPT = 2  # newest checkpoints of a phase


@dataclass
class Checkpoint:
    """Everything that the rest of a phase depends on."""

    fingerprint: dict[str, Any]  # what the phase was started with; another one is another run
    history: History  # its `steps` are the place in the schedule and in the data
    redraws: list[tuple[int, int]]  # (epoch, row) from which the data order was shuffled again
    random: list[dict[str, Any]]  # one state a rank
    values: dict[str, Tensor]  # trainable parameters and adapter buffers
    optimizer: dict[str, Tensor] = field(default_factory=dict)  # `key/parameter name`
    best: dict[str, Tensor] = field(default_factory=dict)  # values of the best validation so far


def write(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes the checkpoint; the folder is there in full or not at all."""

    def fill(temporary: Path) -> None:
        for name in ("values", "optimizer", "best"):
            tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in getattr(checkpoint, name).items()}
            save_file(tensors, temporary / f"{name}.safetensors", metadata={"format": "pt"})
        state = {
            "fingerprint": checkpoint.fingerprint,
            "history": asdict(checkpoint.history),
            "redraws": checkpoint.redraws,
        }
        (temporary / "state.json").write_text(json.dumps(state))
        (temporary / "random.json").write_text(json.dumps(checkpoint.random))

    write_folder(folder, fill)


def read(folder: Path, device: str = "cpu") -> Checkpoint:
    """The checkpoint in a folder that is known to be complete."""
    state = json.loads((folder / "state.json").read_text())
    history = History(**state["history"])
    history.validations = [(step, value) for step, value in history.validations]
    return Checkpoint(
        fingerprint=state["fingerprint"],
        history=history,
        redraws=[(epoch, place) for epoch, place in state["redraws"]],
        random=json.loads((folder / "random.json").read_text()),
        **{name: load_file(folder / f"{name}.safetensors", device=device) for name in ("values", "optimizer", "best")},
    )


def newest(parent: Path, phase: str) -> Path | None:
    """The newest complete checkpoint of a phase; torn ones are removed."""
    remove_torn(parent)
    found = _checkpoints(parent, phase)
    return found[-1] if found else None


def remove_all_but(kept: int, parent: Path, phase: str) -> None:
    """Removes a phase's checkpoints but for the newest `kept`."""
    found = _checkpoints(parent, phase)
    for folder in found[: len(found) - kept]:
        shutil.rmtree(folder)


def _checkpoints(parent: Path, phase: str) -> list[Path]:
    pattern = re.compile(re.escape(phase) + r"-(\d+)")
    steps: dict[int, Path] = {}
    for folder in parent.iterdir() if parent.is_dir() else ():
        if match := pattern.fullmatch(folder.name):
            steps[int(match[1])] = folder
    return [steps[step] for step in sorted(steps)]
