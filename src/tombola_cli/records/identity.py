"""A run's name: a hash of everything that decides its result, and of nothing else, computed without torch.

What decides: the method, model, task and training groups, the seed, and the bytes of weights and data. What does not:
where things lie, how the run is launched, logged and stored, and the fields of a YAML that only serve plans and checks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tombola_cli.records.sources import forgetting_probes

HASH_LENGTH = 10  # hex digits: 40 bits, so among 10,000 runs a collision has a chance of 1 in 20,000
GROUPS = ("method", "model", "task", "training")

# Fields outside the identity, so that correcting a description renames no result.
# Of a task, `labels` stays in (it sizes the head that is trained), so do `kind` (how answers are made) and `metrics`
# (the first one chooses the best checkpoint): changing them changes results.
OUTSIDE: dict[str, tuple[str, ...]] = {
    # `sources` stands for the first five; the others describe the network for plans and checks (a method's targets and
    # grid have been resolved into method.config, which is inside).
    "model": ("source", "repo", "revision", "path", "weights", "architecture", "gated", "targets", "linears", "grid"),
    # `sources` stands for the first five; `version` is bumped when the code behind `_target_` prompts or scores anew.
    "task": (
        *("repo", "revision", "url", "data_dir", "files"),
        *("licence", "optional_files", "_target_", "roles", "rows", "tokens", "hub_datasets"),
    ),
}

# Options that came after the first results, with the value that means "off": dropped while off, so that old ids stay.
# Example: {"training.swap_every": None}. Lines are added, never changed or removed.
LATER: dict[str, Any] = {"training.head_lr": None, "training.base_dropout": None, "task.test_sets": None}


def run_id(config: Mapping[str, Any], sources: Mapping[str, str], *, later: Mapping[str, Any] = LATER) -> str:
    """`<method>-<model>-<task>-s<seed>-<hash>` of a composed config and the checksums of `sources(config)`.

    The same run typed in another way (`alpha=4` for `4.0`, another order, another folder) has the same id.
    """
    text = json.dumps(identity(config, sources, later=later), sort_keys=True, separators=(",", ":"), allow_nan=False)
    names = [config["method"]["name"], config["model"]["name"], config["task"]["name"].replace("/", "_")]
    return "-".join([*names, f"s{config['seed']}", hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]])


def evaluation_id(config: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """`<run>-on-<task>-<hash>` of a finished run's model on a task; hashed are its weights, the task, how it is asked.

    `config["evaluated"]` names the run and the checksum of what it saved.
    """
    training = config["training"]
    asked = {
        "saved": config["evaluated"]["saved"],
        "task": _plain({name: config["task"][name] for name in config["task"] if name not in OUTSIDE["task"]}),
        "data": sources["data"],
        "how": [training[name] for name in ("max_eval_rows", "eval_token_budget", "max_length")],
    }
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), allow_nan=False)
    task = config["task"]["name"].replace("/", "_")
    return f"{config['evaluated']['run']}-on-{task}-{hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]}"


def identity(
    config: Mapping[str, Any], sources: Mapping[str, str], *, later: Mapping[str, Any] = LATER
) -> dict[str, Any]:
    """What `run_id` hashes: compare two of these to see why two runs have different ids."""
    kept: dict[str, Any] = {"seed": config["seed"], "sources": dict(sources)}
    for group in GROUPS:
        outside = OUTSIDE.get(group, ())
        kept[group] = {name: _plain(value) for name, value in config[group].items() if name not in outside}
    if probes := forgetting_probes(config):  # off, it leaves the ids of runs from before as they were
        kept["forgetting"] = _plain({name: probes[name] for name in probes if name not in OUTSIDE["task"]})
    for path, off in later.items():
        _drop_if_off(kept, path.split("."), off)
    return kept


def _plain(value: Any) -> Any:
    """The value with 4.0 as 4: whether a whole number was typed with a point does not change a run."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def _drop_if_off(tree: dict[str, Any], path: list[str], off: Any) -> None:
    for name in path[:-1]:
        if not isinstance(tree.get(name), dict):
            return
        tree = tree[name]
    value = tree.get(path[-1])
    # True == 1 in Python, but `option: 1` is not `option: true`
    if path[-1] in tree and value == _plain(off) and isinstance(value, bool) == isinstance(off, bool):
        del tree[path[-1]]
