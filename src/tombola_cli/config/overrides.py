"""The words of a command line as overrides: a choice for a group, or a value for a field."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType, ValueType
from hydra.errors import HydraException

from tombola_cli.config.nearest import nearest

MANY = 30  # choices in one line: all but the recipes
NOT_AN_OVERRIDE = "this is not an override; write GROUP=CHOICE or FIELD=VALUE, such as method=lora or training.lr=1e-3"


@dataclass(frozen=True)
class Change:
    """A field and its new value; `text` is what was typed, for the error line and for text that looks like a number."""

    path: str
    value: Any
    text: str


@dataclass(frozen=True)
class Request:
    """What a command line asks for, as far as it can be understood; `problems` has a line for the rest."""

    choices: dict[str, str | None] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read(words: Iterable[str], known: dict[str, list[str]]) -> Request:
    """The request that `words` make, where `known` lists each group's choices."""
    request = Request()
    for word in words:
        override = _parse(word)
        if override is None:
            request.problems.append(f"{word}: {NOT_AN_OVERRIDE}")
        elif override.is_sweep_override():
            request.problems.append(f"{word}: several values; add -m for one run a value, or quote a text with a comma")
        elif override.key_or_group in known and not isinstance(override.value(), dict):
            _choose(request, override, known)
        elif (problem := _refusal(override)) is not None:
            request.problems.append(f"{word}: {problem}")
        else:
            request.changes.extend(_changes(override.key_or_group, override.value(), word.partition("=")[2]))
    return request


def expand(words: Sequence[str], known: dict[str, list[str]]) -> list[list[str]]:
    """One list of words for each job of a sweep, the last varying fastest; what cannot be read stays as it is."""
    return [list(job) for job in itertools.product(*(_variants(word, known) for word in words))]


def _variants(word: str, known: dict[str, list[str]]) -> list[str]:
    override = _parse(word)
    if override is None or not override.is_sweep_override():
        return [word]
    key = override.get_key_element()
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        pattern = override.value()
        assert isinstance(pattern, Glob)
        names = [name for name in known.get(key, []) if any(fnmatchcase(name, one) for one in pattern.include)]
        return [f"{key}={name}" for name in names if not any(fnmatchcase(name, one) for one in pattern.exclude)] or [
            word
        ]
    if not override.is_discrete_sweep():
        return [word]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _parse(word: str) -> Override | None:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return None
    return override if override.key_or_group else None


def _choose(request: Request, override: Override, known: dict[str, list[str]]) -> None:
    """Record a group's choice; one that does not exist is a problem, and the nearest stands in for further checks."""
    group, value = override.key_or_group, override.value()
    removed = override.type is OverrideType.DEL or value is None
    if override.package is not None or (removed and group != "recipe"):
        request.problems.append(f"{override.input_line}: {group} takes one of {', '.join(known[group])}")
        return
    name = None if removed else str(value)
    if name is None or name in known[group]:
        request.choices[group] = name
        return
    request.problems.append(_unknown_choice(group, name, known))
    meant = nearest(name, known[group])
    if meant:
        request.choices[group] = meant


def _unknown_choice(group: str, name: str, known: dict[str, list[str]]) -> str:
    line = f"{group}={name}: there is no such {group}; "
    elsewhere = [other for other in known if other != group and name in known[other]]
    if elsewhere:
        return f"{line}{name} is a choice of {elsewhere[0]}: type {elsewhere[0]}={name}"
    meant = nearest(name, known[group])
    names = known[group] if len(known[group]) <= MANY else [*known[group][:MANY], "..."]
    choices = f"choices: {', '.join(names) or 'none'}"
    return f"{line}did you mean {group}={meant}? ({choices})" if meant else line + choices


def _refusal(override: Override) -> str | None:
    if override.key_or_group.split(".")[0] == "hydra":
        return "Hydra's own settings are not used here; runs.dir=DIR says where runs are kept"
    if override.type is OverrideType.DEL:
        return "a field cannot be removed; give it another value, or null where that is allowed"
    if override.package is not None:
        return "a field has no package; write FIELD=VALUE"
    return None


def _changes(path: str, value: Any, text: str) -> list[Change]:
    """A dict with entries as one change each, as Hydra merges it: `training={lr: 1e-3, epochs: 2}` is two fields."""
    if isinstance(value, dict) and value:
        return [one for name, inner in value.items() for one in _changes(f"{path}.{name}", inner, str(inner))]
    return [Change(path, value, text)]
