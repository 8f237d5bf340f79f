"""What is inside a run's identity, what is outside, and ids that must never change."""

import subprocess
import sys
from copy import deepcopy

import pytest

from tombola_cli.records import evaluation_id, identity, run_id, sources
from tombola_cli.records.identity import LATER, OUTSIDE

# If one of these changes, committed records are orphaned: give a new option's "off" value a line in LATER instead.
PINNED = {
    (): "bola-minilm-textual_digits-s0-22f2f9e7aa",
    (("seed", 1),): "bola-minilm-textual_digits-s1-f5c452d239",
    (("task.name", "glue/cola"), ("training.lr", 5e-4)): "bola-minilm-glue_cola-s0-9ef0f11e3e",
}


@pytest.mark.parametrize("edits", list(PINNED))
def test_ids_are_pinned(config, edits):
    for path, value in edits:
        _set(config, path, value)
    assert _id(config) == PINNED[edits]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.path", None),
        ("model.gated", True),
        ("model.targets", ["dense"]),
        ("model.linears", []),
        ("model.grid", {"in_divs": 1, "out_divs": 1}),
        ("model.architecture", {"hidden_size": 1}),
        ("model.weights.package", "another-package"),
        ("task.roles", []),
        ("task.rows", {"train": 1}),
        ("task.tokens", {"train": 1}),
        ("task.files", ["a"]),
        ("task.licence", "MIT"),
        ("task.optional_files", ["a"]),
        ("task._target_", None),
        ("launch.nproc", 8),
        ("log.tracker", "wandb"),
        ("force", True),
        ("plan", True),
        ("runs.dir", "elsewhere"),
        ("records.dir", "elsewhere"),
        ("table", "bola_table1"),
        ("method.config.alpha", 16),
        ("training.betas", (0.9, 0.999)),
    ],
)
def test_what_does_not_decide_the_result_is_outside(config, path, value):
    before = _id(config)
    _set(config, path, value)
    assert _id(config) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("method.config.alpha", 16.5),
        ("method.config.target_modules", ["query"]),
        ("method.config._target_", "peft.LoraConfig"),
        ("method.config.modules_to_save", ["classifier"]),
        ("model.dtype", "bfloat16"),
        ("model.role", "decoder"),
        ("model.weights.sha256", "cd" * 32),
        ("task.version", 2),
        ("task.labels", 11),
        ("task.kind", "regress"),
        ("task.metrics", ["f1"]),
        ("task.an_option_of_the_loader", 1),
        ("training.lr", 0.001),
        ("training.max_steps", 10),
        ("training.max_steps", 0),
    ],
)
def test_what_decides_the_result_is_inside(config, path, value):
    before = _id(config)
    _set(config, path, value)
    assert _id(config) != before


def test_order_of_fields_does_not_matter(config):
    turned = {name: config[name] for name in reversed(config)}
    turned["training"] = {name: config["training"][name] for name in reversed(config["training"])}
    assert _id(turned) == _id(config)


def test_true_is_not_one(config):
    config["training"]["flag"] = True
    before = _id(config)
    config["training"]["flag"] = 1
    assert _id(config) != before


@pytest.mark.parametrize(("path", "off", "on"), [("training.swap", None, 3), ("method.config.gate", False, True)])
def test_a_later_option_is_dropped_while_off(config, path, off, on):
    later = {path: off, "training.nowhere.deep": 1}
    before = _id(config)
    _set(config, path, off)
    assert _id(config) != before
    assert _id(config, later) == before
    _set(config, path, on)
    assert _id(config, later) != before


def test_a_later_option_that_is_off_by_false_is_not_off_by_zero(config):
    _set(config, "training.flag", 0)
    assert "flag" in identity(config, sources(config), later={"training.flag": False})["training"]


PROBES = {
    **{"name": "probes/forgetting", "data_dir": None, "repo": "org/harness", "revision": "v1"},
    **{"files": ["piqa.jsonl"], "hub_datasets": {"piqa": "org/piqa"}, "probes": ["piqa"], "shots": {"piqa": 0}},
}


def test_forgetting_is_outside_while_it_is_not_measured(config):
    config["forgetting"] = {"name": "none"}
    assert _id(config) == PINNED[()]
    config["forgetting"] = PROBES
    measured = _id(config)
    assert measured != PINNED[()]
    for name, value, other in (
        ("hub_datasets", {}, False),
        ("files", [], False),
        ("shots", {"piqa": 5}, True),
        ("revision", "v2", True),  # by way of the sources
    ):
        config["forgetting"] = {**PROBES, name: value}
        assert (_id(config) != measured) is other, name


def test_an_evaluation_is_named_by_its_run_its_task_and_how_it_is_asked(config):
    config["evaluated"] = {"run": "bola-minilm-x-s0-ab", "saved": "cd" * 32}
    config["training"] |= {"max_eval_rows": None, "eval_token_budget": 64, "max_length": 8}
    config["task"]["name"] = "glue/cola"
    data = {"data": "sha256:1"}
    first = evaluation_id(config, data)
    assert first.startswith("bola-minilm-x-s0-ab-on-glue_cola-")
    others = [evaluation_id(config, {"data": "sha256:2"})]
    for path, value in (
        ("evaluated.saved", "ef" * 32),
        ("task.version", 2),
        ("training.max_eval_rows", 5),
        ("training.max_length", 9),
    ):
        changed = deepcopy(config)
        _set(changed, path, value)
        others.append(evaluation_id(changed, data))
    assert len({first, *others}) == 6
    config["training"]["lr"] = 1.0
    config["task"]["data_dir"] = "elsewhere"
    assert evaluation_id(config, data) == first


def test_the_id_leaves_the_config_alone(config):
    before = deepcopy(config)
    _id(config, {"training.max_steps": None})
    assert config == before


def test_a_value_that_is_no_number_is_refused(config):
    config["training"]["lr"] = float("inf")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        _id(config)


def test_later_names_fields_inside_the_identity():
    for path in LATER:
        group, field = path.split(".")[:2]
        assert field not in OUTSIDE.get(group, ()), path


def test_no_heavy_import(repository):
    code = (
        "import sys, tombola_cli.records; print(sorted({'torch', 'numpy', 'transformers', 'peft'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(repository / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def _id(config, later=LATER):
    return run_id(config, sources(config), later=later)


def _set(tree, path, value):
    *parents, name = path.split(".")
    for parent in parents:
        tree = tree[parent]
    tree[name] = value
