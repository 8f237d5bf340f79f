"""Whether a composed config makes sense: ranges, names, and the combinations that cannot run. Plain values only."""

from __future__ import annotations

import os
from typing import Any

from tombola_cli.config.allowed import target_faults
from tombola_cli.config.fields import FIELDS, fault
from tombola_cli.config.layers import layer_faults
from tombola_cli.config.nearest import did_you_mean
from tombola_cli.config.signature import constructor_fields

ABSENT = object()
REQUIRED = {
    "method": ("name", "_target_"),
    "model": ("name", "source", "role", "architecture"),
    "task": ("name", "version", "_target_", "kind", "roles", "files", "labels"),
}
POSITIONS_KEPT = {"bert": 0, "roberta": 2}  # learned ones; RoBERTa counts from pad_token_id + 1


def check(config: dict[str, Any]) -> list[str]:
    """A line for each mistake in `config`, all of them; what this machine lacks is `machine.missing`'s to say."""
    malformed = [*_incomplete(config), *_unknown(config)]
    if malformed:
        return malformed
    ranges = range_faults(config)
    combinations = [*(role_faults(config) or _kind_faults(config)), *_launch_faults(config, ranges)]
    combinations += [*_length_faults(config), *_vllm_faults(config)]
    return [*target_faults(config), *ranges, *combinations, *layer_faults(config)]


def _incomplete(config: dict[str, Any]) -> list[str]:
    """A line for each field that a choice's YAML must have and has not: somebody is writing a new one."""
    lacking = [(group, name) for group, names in REQUIRED.items() for name in names if name not in config[group]]
    return [f"{group}.{name}: missing; the YAML in conf/{group} must have it" for group, name in lacking]


def _unknown(config: dict[str, Any]) -> list[str]:
    """A line for each field that nothing reads, such as a recipe's `training.learning_rate`: Hydra adds it."""
    faults: list[str] = []
    for group in ("training", "evaluation", "launch", "log"):
        known = [path for path in FIELDS if path.startswith(f"{group}.")]
        strangers = [f"{group}.{name}" for name in config[group] if f"{group}.{name}" not in FIELDS]
        faults.extend(f"{path}: there is no such field; {did_you_mean(path, known)}" for path in strangers)
    for path, node in (("method", config["method"]), ("method.config", config["method"].get("config") or {})):
        target = node.get("_target_")
        fields = constructor_fields(target) if isinstance(target, str) else None
        strangers = [name for name in node if name not in ("name", "_target_") and name not in (fields or node)]
        faults.extend(
            f"{path}.{name}: {target} has no such field; {did_you_mean(name, fields or ())}" for name in strangers
        )
    return faults


def range_faults(config: dict[str, Any]) -> list[str]:
    """A line for each value that its field cannot hold."""
    faults = []
    for path, field in FIELDS.items():
        value = _lookup(config, path)
        expected = None if value is ABSENT else fault(field, value)
        if expected:
            faults.append(f"{path}={value}: {expected}")
    return faults


def role_faults(config: dict[str, Any]) -> list[str]:
    """A line for each of the task and the probes of forgetting that a model of this role cannot answer."""
    model, forgetting = config["model"], config.get("forgetting") or {}
    asked = [(f"task={config['task']['name']}", "task", config["task"]["roles"])]
    if "roles" in forgetting:
        asked.append(("forgetting=probes", "probes", forgetting["roles"]))
    return [
        f"{typed} with model={model['name']}: the {what} {'needs' if what == 'task' else 'need'} "
        f"{' or '.join(_article(role) for role in roles)}, and this model is {_article(model['role'])}"
        for typed, what, roles in asked
        if model["role"] not in roles
    ]


def _kind_faults(config: dict[str, Any]) -> list[str]:
    method, task = config["method"], config["task"]
    if task["kind"] == "regress" and str(method["_target_"]).endswith(".PartialLora"):
        why = "its search counts right answers, and a regression has none; take a task with classes"
        return [f"method={method['name']} with task={task['name']}: {why}"]
    return []


def _launch_faults(config: dict[str, Any], ranges: list[str]) -> list[str]:
    if any(line.startswith(("launch.", "training.batch_size")) for line in ranges):
        return []
    kind, processes, batch = config["launch"]["kind"], config["launch"]["nproc"], config["training"]["batch_size"]
    faults = []
    if kind == "single" and processes > 1:
        started = f"WORLD_SIZE={processes}" if "RANK" in os.environ else f"launch.nproc={processes}"
        faults.append(f"{started}: launch=single is one process; type launch=ddp (or zero2, zero3) for {processes}")
    if kind == "zero3" and str(config["method"]["_target_"]).endswith(".Qlora"):
        faults.append(
            "method=qlora with launch=zero3: four-bit weights cannot be split; take launch=zero2 or launch=ddp"
        )
    if batch % processes:
        near = max(processes, round(batch / processes) * processes)
        faults.append(f"training.batch_size={batch}: not divisible by launch.nproc={processes}; nearest is {near}")
    return faults


def _length_faults(config: dict[str, Any]) -> list[str]:
    """Rows that the model has no positions for, or that would all be cut."""
    model, task, longest = config["model"], config["task"], config["training"]["max_length"]
    if model["role"] == "image_encoder" or not isinstance(longest, int):
        return []
    architecture = model["architecture"]
    kept = POSITIONS_KEPT.get(architecture["model_type"])
    places = None if kept is None else architecture["max_position_embeddings"] - kept
    if places is not None and longest > places:
        return [f"training.max_length={longest}: {model['name']} has {places} positions; give that or less"]
    typical = (task.get("tokens") or {}).get("train")
    if typical and typical > longest:
        return [
            f"training.max_length={longest}: rows of {task['name']} have about {typical} tokens; give more than that"
        ]
    return []


def _vllm_faults(config: dict[str, Any]) -> list[str]:
    """What vLLM does not do for us: beams, whose search is not that of transformers, and several ranks."""
    if config["evaluation"]["generate"] != "vllm":
        return []
    beams, processes = config["task"].get("num_beams") or 1, config["launch"]["nproc"]
    faults = []
    if isinstance(beams, int) and beams > 1:
        faults.append(
            f"evaluation.generate=vllm: it decodes greedily, and task.num_beams={beams}; type task.num_beams=1"
        )
    if processes > 1:
        faults.append(
            f"evaluation.generate=vllm with launch.nproc={processes}: it takes one process; take launch=single"
        )
    return faults


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "aei" else f"a {role}"


def _lookup(config: dict[str, Any], path: str) -> Any:
    node: Any = config
    for name in path.split("."):
        if not isinstance(node, dict) or name not in node:
            return ABSENT
        node = node[name]
    return node
