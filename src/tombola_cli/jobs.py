"""One run, from its command's words to its exit status: composed, checked, named, skipped if done, else started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola_cli.config.check import check
from tombola_cli.config.choices import CONF
from tombola_cli.config.compose import examine
from tombola_cli.config.machine import missing
from tombola_cli.launch import in_a_child, in_this_process
from tombola_cli.records import Record, find_ok, run_id, sources
from tombola_cli.run_folder import locked, write_config


@dataclass(frozen=True)
class Job:
    """A run that could be started."""

    words: tuple[str, ...]
    config: dict[str, Any]
    id: str
    sources: dict[str, str]

    @property
    def folder(self) -> Path:
        """`runs/<id>`."""
        return Path(self.config["runs"]["dir"]) / self.id

    @property
    def log(self) -> Path:
        """What the run printed, when it had a process of its own in a sweep."""
        return self.folder / "run.log"

    def finished(self) -> Record | None:
        """The ok record of this identity, unless `force` asks for another one."""
        return None if self.config["force"] else find_ok(self.config["records"]["dir"], self.id)


def examined(words: Sequence[str], conf_dir: Path = CONF) -> tuple[dict[str, Any], list[str]]:
    """The config of a command and every problem with it, those of this machine included unless it only plans."""
    config, problems = examine(words, conf_dir)
    if "RANK" in os.environ:  # started by another launcher, which says how many there are
        config["launch"]["nproc"] = int(os.environ.get("WORLD_SIZE", "1"))
    problems.extend(line for line in check(config) if line not in problems)
    if not config["plan"]:
        problems.extend(missing(config))
    return config, problems


def job(words: Sequence[str], config: dict[str, Any]) -> Job:
    """The job of a checked config.

    Raises:
        tombola_cli.records.SourceError: local weights or data changed under us.
    """
    found = sources(config)
    return Job(tuple(words), config, run_id(config, found), found)


def start(one: Job, *, log: Path | None = None) -> int:
    """The run's exit status; with `log` in a process of its own, whose output is kept there.

    Raises:
        tombola_cli.run_folder.Busy: the same run is being run already.
    """
    launched_elsewhere = "RANK" in os.environ
    if launched_elsewhere and os.environ["RANK"] != "0":
        _write(one)
        return in_this_process(one.folder)
    with locked(one.folder) as lock:
        if one.finished():  # by the process that held the lock a moment ago
            return 0
        _write(one)
        if log is None:
            print(f"run {one.id} in {one.folder}", flush=True)
        if log is None and (launched_elsewhere or one.config["launch"]["kind"] == "single"):
            return in_this_process(one.folder)
        return in_a_child(one.folder, one.config, lock=lock, log=log)


def _write(one: Job) -> None:
    command = ["train.py", *one.words]
    write_config(one.folder, run_id=one.id, config=one.config, sources=one.sources, command=command)
