"""Every YAML of `conf/`, composed and checked: what a user can type is what was tried."""

import pytest

from tombola_cli.config.check import check
from tombola_cli.config.choices import CONF, choices, purpose
from tombola_cli.config.compose import compose
from tombola_cli.config.signature import constructor_fields
from tombola_cli.records import run_id

KNOWN = choices(CONF)
SHARED = [name for name in KNOWN["recipe"] if name.count("-") < 2 or "/" in name.split("-")[0]]  # parts of recipes


@pytest.mark.parametrize("model", KNOWN["model"])
def test_every_method_fits_every_model(model):
    for method in KNOWN["method"]:
        config = compose([f"method={method}", f"model={model}"])
        other_task = [line for line in check(config) if not line.startswith("task=")]
        assert (method, other_task) == (method, [])


@pytest.mark.parametrize("model", ["minilm", "smollm2_135m", "vit_b16"])  # one of each role
def test_every_task_fits_the_models_of_its_roles(model):
    for task in KNOWN["task"]:
        config = compose([f"task={task}", f"model={model}"])
        found = [line for line in check(config) if not line.startswith("training.max_length")]
        fits = config["model"]["role"] in config["task"]["roles"]
        assert (task, ["with model=" in line for line in found]) == (task, [] if fits else [True])


def test_every_recipe_fits_its_combination():
    for recipe in set(KNOWN["recipe"]) - set(SHARED):
        method, model, task = recipe.split("-", 2)
        words = [f"method={method}", f"model={model}", f"task={task}"]
        assert check(compose(words)) == [], recipe


@pytest.mark.parametrize("group", ["training", "launch", "log"])
def test_every_other_choice_composes(group):
    for name in KNOWN[group]:
        assert check(compose([f"{group}={name}"])) == [], name


def test_forgetting_is_measured_by_the_probes_of_the_task():
    config = compose(["forgetting=probes", "model=tiny_llama"])
    assert check(config) == []
    assert config["forgetting"] == compose(["task=probes/forgetting"])["task"]
    assert compose([])["forgetting"] == {"name": "none"}


@pytest.mark.parametrize("name", ["demo", "smoke"])
def test_a_budget_is_the_paper_with_caps(name):
    paper, budget = compose(["recipe=null"])["training"], compose([f"training={name}", "recipe=null"])["training"]
    assert {field for field in paper if paper[field] != budget[field]} <= {"max_steps", "max_rows", "max_eval_rows"}


def test_every_yaml_begins_by_saying_what_it_is():
    spoken = {group: names for group, names in KNOWN.items() if group != "recipe"}
    assert [(group, name) for group, names in spoken.items() for name in names if not purpose(CONF, group, name)] == []


def test_every_class_that_a_yaml_names_exists():
    targets = [compose([f"method={name}"])["method"] for name in KNOWN["method"]]
    targets += [compose([f"task={name}", "model=minilm"])["task"] for name in KNOWN["task"]]
    nodes = [*targets, *(node["config"] for node in targets if node.get("config"))]
    assert [node["_target_"] for node in nodes if node["_target_"] and not constructor_fields(node["_target_"])] == []


def test_launch_and_log_leave_the_identity_alone():
    ids = {
        run_id(compose(words), {})
        for words in ([], ["log=wandb"], ["launch=zero3", "launch.nproc=2"], ["runs.dir=x"], ["table=t"])
    }
    assert len(ids) == 1
    assert run_id(compose(["training.lr=1"]), {}) not in ids
