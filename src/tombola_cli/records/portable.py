"""Text without this machine in it: paths start at the repository, `$TOMBOLA_DATA` or `$HOME`, or lose their folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

DATA_VARIABLE = "TOMBOLA_DATA"
ELSEWHERE = "..."
# A path where a word or a value begins: absolute, or out of the working folder. The slashes of `https://` and of
# `glue/cola` are inside a word.
PATH = re.compile(r"""(?<![^\s=,'"\[({])(?:~|\.{1,2})?/[^\s,'"\])}]+""")


def portable(value: Any, *, root: Path) -> Any:
    """`value` with every path in its strings made fit to publish; relative paths are read from the working folder.

    A path that is neither in the data folder, the repository `root` nor the home folder keeps only its last name.
    """
    if isinstance(value, Mapping):
        return {name: portable(one, root=root) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(one, root=root) for one in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return _portable_text(value, _known_folders(root)) if isinstance(value, str) else value


def _known_folders(root: Path) -> list[tuple[str, str]]:
    """(folder, what to write for it), the folder as given and without links; the first that fits is used."""
    named = [
        (os.environ.get(DATA_VARIABLE, ""), f"${DATA_VARIABLE}"),
        (str(root), ""),
        (os.path.expanduser("~"), "$HOME"),
    ]
    folders = []
    for folder, label in named:
        for path in dict.fromkeys([os.path.abspath(folder), os.path.realpath(folder)] if folder else []):
            if path != os.sep:  # a home folder of "/" would claim every path
                folders.append((path, label))
    return folders


def _portable_text(text: str, folders: list[tuple[str, str]]) -> str:
    for folder, label in folders:  # whole prefixes first: they may contain spaces, at which PATH stops
        prefix = rf"""(?<![\w.$/-]){re.escape(folder)}(?P<rest>/[^\s,'"\])}}]*|(?![\w.-]))"""
        text = re.sub(prefix, partial(_shortened, label), text)
    return PATH.sub(lambda hit: _portable_path(hit[0], folders), text)


def _shortened(label: str, hit: re.Match[str]) -> str:
    return _join(label, hit["rest"])


def _portable_path(path: str, folders: list[tuple[str, str]]) -> str:
    for absolute in (os.path.abspath(os.path.expanduser(path)), os.path.realpath(os.path.expanduser(path))):
        for folder, label in folders:
            if absolute == folder or absolute.startswith(folder + os.sep):
                return _join(label, absolute[len(folder) :])
    name = os.path.basename(absolute)
    return _join(ELSEWHERE, "" if name in _user_names() else "/" + name)


def _user_names() -> set[str]:
    """A folder named after its owner would give the owner away."""
    named = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")}
    return named | {os.path.basename(os.path.expanduser("~"))}


def _join(label: str, rest: str) -> str:
    rest = rest.rstrip("/")
    return (label + rest if label else rest.lstrip("/")) or "."
