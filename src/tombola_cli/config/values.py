"""One overridden value against what its field holds: the type of the composed default, or the documented one."""

from __future__ import annotations

import os
from typing import Any

from tombola_cli.config.fields import FIELDS, KINDS, describe
from tombola_cli.config.overrides import Change
from tombola_cli.config.signature import accepts, named_values

NAMES: dict[type, str] = {**KINDS, list: "a list", dict: "a mapping"}
FOLDERS = ("runs.dir", "records.dir", "task.data_dir", "model.path")


class WrongType(ValueError):
    """A value that cannot be what its field holds; the message is what was expected."""


def fitted(change: Change, value: Any, default: Any, annotation: str | None) -> Any:
    """`value` as the field's type (1 as 1.0 for a number, 1e3 as 1000 for a count).

    `default` is the composed value before any override, and `annotation` the constructor's, where there is one.

    Raises:
        WrongType: says what the field takes.
    """
    field = FIELDS.get(change.path)
    like: Any = field.kind() if field else default
    if value is None:
        documented = default is None or (annotation is not None and accepts(annotation, None))
        if field.nullable if field else documented:
            return None
        raise WrongType(f"expected {describe(field) if field else NAMES.get(type(default), 'a value')}")
    if like is None:
        if annotation is None or accepts(annotation, value):
            return value
        raise WrongType(f"expected {annotation}")  # its own words: Optional[list[str]]
    try:
        typed = _as(value, like, change.text)
        if change.path in FOLDERS:
            return os.path.expandvars(os.path.expanduser(typed))  # a shell leaves the ~ in task.data_dir=~/data
        if annotation is None or not named_values(annotation) or accepts(annotation, typed):
            return typed
        raise WrongType(f"expected one of {', '.join(named_values(annotation))}")
    except TypeError:
        if annotation is not None and accepts(annotation, value):  # such as target_modules: a list, or one pattern
            return value
        raise WrongType(f"expected {describe(field) if field else _expected(like)}") from None


def _as(value: Any, like: Any, text: str) -> Any:
    """`value` as the type of `like`; TypeError where it is not one."""
    if isinstance(like, bool) or isinstance(value, bool):
        if isinstance(like, bool) and isinstance(value, bool):
            return value
        raise TypeError
    if isinstance(like, int):
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
        raise TypeError
    if isinstance(like, float) and isinstance(value, (int, float)):
        return float(value)
    if isinstance(like, str) and isinstance(value, (str, int, float)):
        return value if isinstance(value, str) else text  # a commit such as 12345e6 is text that looks like a number
    if isinstance(like, list) and isinstance(value, list):
        return [_as(one, like[0], str(one)) for one in value] if like else value
    if isinstance(like, dict) and isinstance(value, dict):
        return value
    raise TypeError


def _expected(like: Any) -> str:
    if isinstance(like, list) and like:
        return f"a list such as [{', '.join(str(one) for one in like[:3])}]"
    return NAMES.get(type(like), type(like).__name__)
