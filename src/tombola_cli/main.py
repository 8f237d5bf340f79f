"""The command line: help, then the config and every problem with it, then a plan, a run, or a sweep.

Nothing here imports torch until a plan or a run really starts, so that a mistake costs a fraction of a second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola_cli.config.choices import CONF
from tombola_cli.help import help_text, print_help

FLAGS = {"-h": "help", "--help": "help", "-m": "multirun", "--multirun": "multirun"}


@dataclass(frozen=True)
class Command:
    """What was typed: the overrides, and which of the flags."""

    words: tuple[str, ...]
    help: bool = False
    multirun: bool = False
    show_config: bool = False


class UsageError(ValueError):
    """An option that does not exist."""


def main(argv: Sequence[str], conf_dir: Path = CONF) -> int:
    """The exit status: 0 done (or done before), 1 a mistake or a failed run, 75 stopped after a checkpoint."""
    try:
        command = read_command(argv)
    except UsageError as error:
        return _complain([str(error)])
    if command.help:
        print_help(help_text(conf_dir))
        return 0
    # 0.1 s, which --help does without
    from tombola_cli.config.compose import ConfigError
    from tombola_cli.records import RecordError, SourceError
    from tombola_cli.run_folder import Busy

    try:
        return _act(command, conf_dir)
    except ConfigError as error:
        return _complain(error.problems)
    except (Busy, RecordError, SourceError) as error:
        return _complain([str(error)])
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 128 + signal.SIGINT


def read_command(argv: Sequence[str]) -> Command:
    """The words of a command line told apart.

    Raises:
        UsageError: names the option that does not exist and those that do.
    """
    words: list[str] = []
    flags: dict[str, bool] = {}
    rest = iter(argv)
    for word in rest:
        if word in FLAGS:
            flags[FLAGS[word]] = True
        elif word in ("-c", "--cfg") or word.startswith("--cfg="):
            what = word.partition("=")[2] if "=" in word else next(rest, "")
            if what != "job":
                raise UsageError(f"--cfg {what}: only --cfg job is there, which prints the composed config")
            flags["show_config"] = True
        elif word.startswith("-"):
            raise UsageError(f"{word}: there is no such option; there are --help, --cfg job and --multirun (-m)")
        else:
            words.append(word)
    return Command(tuple(words), **flags)


def _act(command: Command, conf_dir: Path) -> int:
    if command.multirun:
        return _sweep(command, conf_dir)
    from tombola_cli.config.compose import ConfigError
    from tombola_cli.jobs import examined, job, start

    if command.show_config:
        return _show(command, conf_dir)
    config, problems = examined(command.words, conf_dir)
    if problems:
        raise ConfigError(problems)
    if config["plan"]:
        return _plan(config)
    one = job(command.words, config)
    record = one.finished()
    if record is None:
        return start(one)
    if os.environ.get("RANK", "0") == "0":
        tell(record, config["records"]["dir"])
    return 0


def _sweep(command: Command, conf_dir: Path) -> int:
    from tombola_cli.config.compose import ConfigError
    from tombola_cli.sweep import prepare, sweep

    if "RANK" in os.environ:
        line = "-m: a sweep starts its own processes and cannot run under a launcher (RANK is set)"
        raise ConfigError([f"{line}; type python train.py -m ... launch=ddp launch.nproc=N instead"])
    jobs = prepare(command.words, conf_dir)
    if command.show_config:
        for one in jobs:
            _print_config(one.config)
        return 0
    if any(one.config["plan"] for one in jobs):
        return max(_plan(one.config) for one in jobs)
    return sweep(jobs)


def _show(command: Command, conf_dir: Path) -> int:
    from tombola_cli.config.compose import compose

    _print_config(compose(command.words, conf_dir))
    return 0


def _print_config(config: dict[str, Any]) -> None:
    import yaml

    print(yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=120), end="")


def _plan(config: dict[str, Any]) -> int:
    from rich.console import Console

    from tombola.models import plan  # torch from here on

    try:
        Console().print(plan(config).render())
    except ValueError as error:  # the rooms' own errors: one line each
        return _complain([str(error)])
    return 0


def tell(record: Any, directory: str) -> None:
    """Shows the scores of what is done, instead of doing it again."""
    print(f"{record.id} is finished (recorded in {directory}); force=true runs it again")
    for score in record.scores:
        print(f"  {score.task:<20} {score.split:<14} {score.metric:<20} {score.value:8.4f}  n={score.n}")


def _complain(problems: Sequence[str]) -> int:
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    return 1
