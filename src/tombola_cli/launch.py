"""How a prepared run is started: in this process, in one of its own, or in one a rank."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tombola_cli.config.choices import REPOSITORY
from tombola_cli.parent import EX_TEMPFAIL, forwarding

CHUNK_BYTES = 1 << 16


def in_this_process(folder: Path) -> int:
    """The exit status of the run, without the seconds that a second Python takes to import torch."""
    from tombola.run import main as run

    return run(folder)


def in_a_child(folder: Path, config: Mapping[str, Any], *, lock: int, log: Path | None = None) -> int:
    """The exit status of the run in processes of its own; with `log`, what it prints is kept there and shown as well.

    The child holds the lock too, so that the folder stays locked should this process be killed. SIGTERM, SIGUSR1 and
    SIGINT are passed on; a run that one of them ended is `EX_TEMPFAIL`, for it can be started again.
    """
    pipe = None if log is None else subprocess.PIPE
    child = subprocess.Popen(
        child_command(folder, config),
        env=_environment(config),
        stdout=pipe,
        stderr=None if log is None else subprocess.STDOUT,
        pass_fds=(lock,),
        start_new_session=True,  # a terminal's Ctrl-C comes once, by way of this process
    )
    with forwarding(lambda: [child.pid] if child.poll() is None else []) as arrived:
        if log is not None and child.stdout is not None:
            _copy(child.stdout, log)
        code = child.wait()
    return EX_TEMPFAIL if arrived and code else code


def child_command(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """The words that start the run in a process of its own."""
    if config["launch"]["kind"] == "single":
        return [sys.executable, "-m", "tombola_cli.worker", str(folder)]
    return [sys.executable, "-m", "tombola_cli.ranks", str(config["launch"]["nproc"]), str(folder)]


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    """This process's, with our packages to be found and the cores shared out (the launcher would give one a rank)."""
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(REPOSITORY / "src")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = (
        {"OMP_NUM_THREADS": str(max(1, cores // config["launch"]["nproc"]))} if config["launch"]["nproc"] > 1 else {}
    )
    return {**threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _copy(output: IO[bytes], log: Path) -> None:
    """Everything that the child prints, to the log and to our own output as it comes."""
    with log.open("ab") as file:
        while chunk := os.read(output.fileno(), CHUNK_BYTES):
            file.write(chunk)
            file.flush()
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
