"""A run's working folder: one process tree at a time writes there, and `config.json` says what is run."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
FINISHED = "finished"  # present once an ok record is written


class Busy(RuntimeError):
    """Another process runs in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """The folder's lock, as a file descriptor; the system lets go of it when its last holder ends, however it ends.

    Raises:
        Busy: names the process that holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
            raise Busy(f"{folder} is in use: process {holder} is running it; wait for it, or stop it first") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield lock
    finally:
        os.close(lock)


def write_config(
    folder: Path, *, run_id: str, config: Mapping[str, Any], sources: Mapping[str, str], command: Sequence[str]
) -> None:
    """`config.json`, whole or not at all: the resolved config with the run's `id`, `sources` and `command` (words)."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**config, "id": run_id, "sources": dict(sources), "command": list(command)}
    part = folder / f".{CONFIG_FILE}.{os.getpid()}"
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / CONFIG_FILE)
