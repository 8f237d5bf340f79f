"""Moments at which a run can be killed, put into the code from outside by the driver."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tombola.training import archive, checkpoint, journal, plain, state

# name: (owner, attribute, whether the moment is before or after the call)
POINTS: dict[str, tuple[Any, str, str]] = {
    "forward": (plain.PlainEngine, "__call__", "before"),
    "backward": (plain.PlainEngine, "backward", "after"),
    "gradient norm": (plain.PlainEngine, "gradient_norm", "after"),
    "optimizer step": (plain.PlainEngine, "step", "before"),
    "after the optimizer step": (plain.PlainEngine, "step", "after"),
    "log line": (journal.Journal, "append", "after"),
    "saving, a file written": (checkpoint, "save_file", "after"),
    "saving, no manifest yet": (archive, "sha256", "before"),
    "saving, before the rename": (Path, "rename", "before"),
    "saving, after the rename": (Path, "rename", "after"),
    "saving, old ones not removed": (checkpoint, "remove_all_but", "before"),
    "resuming": (state.Keeper, "resume", "after"),
    "finishing": (state.Keeper, "finish", "before"),
    "finished": (state.Keeper, "finish", "after"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, count: int) -> None:
    """Kills this process at the `count`-th time, from 1, that it comes to a point."""
    if point in SPECIAL:
        SPECIAL[point](count)
        return
    owner, attribute, moment = POINTS[point]
    _wrap(owner, attribute, count, **{moment: lambda *_, **__: die()})


def terminate(point: str, count: int) -> None:
    """Sends this process a SIGTERM at the point, as a scheduler would."""
    owner, attribute, _ = POINTS[point]
    _wrap(owner, attribute, count, before=lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))


def validated(value: float) -> float:
    """Stands at the end of the driver's validation, as a moment to wrap."""
    return value


def _wrap(
    owner: Any, attribute: str, count: int, before: Callable | None = None, after: Callable | None = None
) -> None:
    original = getattr(owner, attribute)
    left = [count]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if before and left[0] == 0:
            before(*args, **kwargs)
        result = original(*args, **kwargs)
        if after and left[0] == 0:
            after(*args, **kwargs)
        return result

    setattr(owner, attribute, wrapper)


def _in_validation(count: int) -> None:
    _wrap(sys.modules[__name__], "validated", count, before=lambda *_: die())


def _half_a_log_line(count: int) -> None:
    def write_half(log: journal.Journal, line: dict[str, Any]) -> None:
        with log.path.open("a") as file:
            file.write('{"phase": "tra')
        die()

    _wrap(journal.Journal, "append", count, before=write_half)


def _half_an_old_checkpoint_removed(count: int) -> None:
    original = shutil.rmtree
    left = [count]

    def rmtree(folder: Path, *args: Any, **kwargs: Any) -> None:
        left[0] -= Path(folder).exists()
        if left[0] == 0:
            next(Path(folder).glob("*.safetensors")).unlink()
            die()
        original(folder, *args, **kwargs)

    shutil.rmtree = rmtree  # type: ignore[assignment]


def _a_torn_checkpoint(count: int) -> None:
    """A checkpoint that looks whole, and some of whose pages never reached the disk."""

    def tear(folder: Path, *_: Any) -> None:
        with (folder / "optimizer.safetensors").open("r+b") as file:
            file.truncate(100)
        die()

    _wrap(checkpoint, "write_folder", count, after=tear)


SPECIAL: dict[str, Callable[[int], None]] = {
    "validation": _in_validation,
    "half a log line": _half_a_log_line,
    "half an old checkpoint removed": _half_an_old_checkpoint_removed,
    "a torn checkpoint": _a_torn_checkpoint,
}
