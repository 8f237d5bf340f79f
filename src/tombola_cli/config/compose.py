"""The config of a command line: Hydra composes the chosen groups, then each override is checked and put in its place.

Hydra stops at the first unknown key and names no other; here every word is looked at, and all mistakes come together.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tombola_cli.config.choices import CONF, GROUPS, choices
from tombola_cli.config.fields import FIELDS
from tombola_cli.config.nearest import did_you_mean
from tombola_cli.config.overrides import Change, read
from tombola_cli.config.signature import constructor_fields
from tombola_cli.config.values import WrongType, fitted

# Of PEFT's config fields, those that PEFT fills in itself.
NOT_FOR_USERS = {"peft_type", "peft_version", "auto_mapping", "inference_mode", "runtime_config"}
NOT_FOR_USERS |= {"base_model_name_or_path"}


class ConfigError(ValueError):
    """A command line that cannot be run; `problems` has one line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def compose(overrides: Sequence[str], conf_dir: Path = CONF) -> dict[str, Any]:
    """The plain, resolved config of `overrides`, as many times in one process as wanted.

    Raises:
        ConfigError: names every override that is unknown or of the wrong type. (`check` judges what the values mean.)
    """
    config, problems = examine(overrides, conf_dir)
    if problems:
        raise ConfigError(problems)
    return config


def examine(overrides: Sequence[str], conf_dir: Path = CONF) -> tuple[dict[str, Any], list[str]]:
    """The config with the overrides that make sense applied, and a line for each one that does not."""
    request = read(overrides, choices(conf_dir))
    tree = copy.deepcopy(_composed(conf_dir, tuple(sorted(request.choices.items()))))
    before = _resolved(tree)
    applied = [change for change in request.changes if _place(tree, before, change, request.problems)]
    try:
        after = _resolved(tree)
    except OmegaConfBaseException as error:
        return before, [*request.problems, f"{error.full_key or 'config'}: {_first_line(error)}"]
    for change in applied:
        _fit(after, before, change, request.problems)
    return after, request.problems


@lru_cache(maxsize=256)
def _composed(conf_dir: Path, chosen: tuple[tuple[str, str | None], ...]) -> dict[str, Any]:
    """The unresolved config of a choice of groups; a table's cells ask for the same few again and again."""
    words = [f"~{group}" if name is None else f"{group}={name}" for group, name in chosen]
    try:
        with initialize_config_dir(str(conf_dir.resolve()), version_base="1.3"):
            config = hydra_compose("config", overrides=words)
        plain = OmegaConf.to_container(config, resolve=False)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError([f"{' '.join(words) or 'config.yaml'}: {_first_line(error)}"]) from error
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def _place(tree: dict[str, Any], before: dict[str, Any], change: Change, problems: list[str]) -> bool:
    """Set the change's field in `tree`; a field that neither the tree nor its constructor has is a problem instead."""
    *folders, name = change.path.split(".")
    node: Any = tree
    for folder in folders:
        node = node.get(folder) if isinstance(node, dict) else None
    open_mapping = bool(folders) and _lookup(before, ".".join(folders)) == {}
    if isinstance(node, dict) and (name in node or open_mapping or name in _addable(node)):
        if not isinstance(node.get(name), dict) or node[name] == {} or change.value is None:
            node[name] = change.value
            return True
        inside = f"{change.path}.{next(iter(node[name]))}"
        problems.append(f"{change.path}={change.text}: this is not one field; set those in it, such as {inside}=...")
        return False
    problems.append(f"{change.path}={change.text}: there is no field {change.path}; {_hint(change.path, tree)}")
    return False


def _fit(after: dict[str, Any], before: dict[str, Any], change: Change, problems: list[str]) -> None:
    """Give the field's value its type; a value of another type is a problem, and the field keeps what it had."""
    folder, _, name = change.path.rpartition(".")
    node = _lookup(after, folder) if folder else after
    default = _lookup(before, change.path)
    target = node.get("_target_")
    annotation = (constructor_fields(target) or {}).get(name) if isinstance(target, str) else None
    try:
        node[name] = fitted(change, node[name], default, annotation)
    except WrongType as error:
        problems.append(f"{change.path}={change.text}: {error}")
        node[name] = default


def _hint(path: str, tree: dict[str, Any]) -> str:
    known = sorted(_paths(tree, "")) + ([] if "." in path else list(GROUPS))
    group, _, _ = path.partition(".")
    if path in FIELDS and group in GROUPS:  # another choice of the group has it
        return f"{group}={tree[group].get('name')} takes none"
    if any(name.startswith("_") for name in path.split(".")):
        return "names that start with _ are Hydra's, and conf/ alone sets them"
    folder = path.rpartition(".")[0]
    near = did_you_mean(path, known)
    beside = [one.rpartition(".")[2] for one in known if folder and one.rpartition(".")[0] == folder]
    return near if near.startswith("did") or not beside else f"{folder} has {', '.join(beside)}"


def _paths(node: dict[str, Any], prefix: str) -> Iterator[str]:
    """Every field there is: the tree's, and those that its constructors take besides."""
    for name in [*node, *_addable(node)]:
        if name.startswith("_"):
            continue
        if node.get(name) and isinstance(node[name], dict):
            yield from _paths(node[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _addable(node: dict[str, Any]) -> list[str]:
    target = node.get("_target_")
    fields = constructor_fields(target) if isinstance(target, str) else None
    return [name for name in fields or {} if name not in node and name not in NOT_FOR_USERS]


def _lookup(tree: dict[str, Any], path: str) -> Any:
    node: Any = tree
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _resolved(tree: dict[str, Any]) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.create(tree), resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)  # of a YAML error: the file and the line
    text = str(error).strip().splitlines()[0]
    return f"{text} ({mark.name}, line {mark.line + 1})" if mark else text
