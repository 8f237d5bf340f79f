from pathlib import Path

import pytest

from tombola_cli.config.choices import CONF
from tombola_cli.config.compose import ConfigError, compose, examine


def problems(*words, conf_dir=CONF):
    return examine(list(words), conf_dir)[1]


def test_the_default_run():
    config = compose(["recipe=null"])
    names = [config[group]["name"] for group in ("method", "model", "task")]
    assert names == ["bola", "minilm", "textual_digits"]
    assert config["method"]["config"]["target_modules"] == config["model"]["targets"]  # resolved, plain lists
    assert type(config["model"]["targets"]) is list


def test_it_can_be_called_again_and_gives_nothing_shared():
    first = compose(["seed=1"])
    first["training"]["lr"] = "spoilt"
    assert compose(["seed=2"])["seed"] == 2
    assert compose(["seed=1"])["training"]["lr"] != "spoilt"


PAPER = ("method=bola", "model=llama3_8b", "task=math")


def test_a_papers_recipe_is_picked_up_by_itself():
    config = compose(PAPER)
    assert (config["method"]["config"]["k"], config["training"]["batch_size"], config["training"]["lr"]) == (
        32,
        128,
        1e-3,
    )


def test_also_for_a_task_in_a_folder():
    config = compose(["method=bola", "model=roberta_base", "task=glue/cola"])
    assert config["method"]["config"]["in_divs"] * config["method"]["config"]["out_divs"] == 768
    assert (config["training"]["epochs"], config["training"]["weight_decay"]) == (30, 0.1)


def test_the_command_line_wins_over_the_recipe():
    assert compose([*PAPER, "training.lr=5e-4", "method.config.k=4"])["training"]["lr"] == 5e-4


@pytest.mark.parametrize("word", ["recipe=null", "~recipe"])
def test_without_the_recipe(word):
    assert compose([*PAPER, word])["training"]["batch_size"] == compose([])["training"]["token_budget"] // 256


@pytest.mark.parametrize("budget", ["demo", "smoke"])
def test_caps_hold_over_a_recipe(budget):
    caps = ("max_steps", "max_rows", "max_eval_rows")
    capped, full = compose([*PAPER, f"training={budget}"])["training"], compose(PAPER)["training"]
    assert {name for name in full if full[name] != capped[name]} <= set(caps)
    assert [full[name] for name in caps] == [None, None, None]
    assert capped["max_steps"] is not None


def test_another_recipe_can_be_named():
    config = compose(["model=llama3_8b", "task=math", "recipe=lora-llama3_8b-math", "method=lora"])
    assert config["method"]["config"]["lora_alpha"] == 64


def test_every_mistake_is_named_at_once():
    found = problems(
        "method=bol", "method.aplha=3", "training.learning_rate=1", "training.epochs=many", "tsak=math", "foo"
    )
    assert [line.split(":")[0] for line in found] == [
        "method=bol",
        "foo",
        "method.aplha=3",
        "training.learning_rate=1",
        "tsak=math",
        "training.epochs=many",
    ]
    assert "there is no field method.aplha; did you mean method.config.alpha?" in found[2]
    assert "did you mean training.lr?" in found[3]
    assert "did you mean task?" in found[4]
    assert "expected a number above 0" in found[5]


def test_compose_raises_them():
    with pytest.raises(ConfigError, match=r"did you mean method\.config\.alpha") as caught:
        compose(["method.aplha=3", "seed=x"])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("training.lr={a: 1}", "training.lr.a=1: there is no field training.lr.a"),
        ("training=3", "training=3: there is no such training"),
        ("model.grid=3", "model.grid=3: this is not one field; set those in it, such as model.grid.in_divs=..."),
        ("task.data_dir=x", "task.data_dir=x: there is no field task.data_dir; task=textual_digits takes none"),
        ("method.config.r=8", "method.config.r=8: there is no field method.config.r; method=bola takes none"),
        ("launch.zzzz=1", "launch has kind, nproc"),
        ("+method.config._target_x=1", "names that start with _ are Hydra's"),
        ("+method._partial_=true", "names that start with _ are Hydra's"),
        ("training.lr=${nowhere}", "training.lr: Interpolation key 'nowhere' not found"),
        ("seed=${oc.env:NO_SUCH_VARIABLE_HERE}", "NO_SUCH_VARIABLE_HERE"),
        ("seed=???", "seed: Missing mandatory value"),
    ],
)
def test_one_mistake_one_line(word, line):
    found = problems(word)
    assert len(found) == 1
    assert line in found[0]
    assert "\n" not in found[0]


def test_a_field_of_the_constructor_that_the_yaml_leaves_out():
    for word in ("method.config.layers_pattern=layer", "+method.config.layers_pattern=layer"):
        assert compose(["method=lora", word])["method"]["config"]["layers_pattern"] == "layer"
    (line,) = problems("method=lora", "+method.config.layers_patern=layer")
    assert "did you mean method.config.layers_pattern?" in line
    (line,) = problems("method=lora", "method.config.layer_replication=yes")
    assert "expected Optional[list[tuple[int, int]]]" in line


def test_open_mappings_take_any_name():
    assert compose(["method=lora", "+method.config.rank_pattern.query=4"])["method"]["config"]["rank_pattern"] == {
        "query": 4
    }


def test_an_interpolation_is_resolved_before_it_is_judged():
    assert compose(["training.epochs=${seed}", "seed=4"])["training"]["epochs"] == 4
    assert "expected a whole number" in problems("seed=${model.name}")[0]


def test_a_broken_yaml_is_one_line_with_its_place(tmp_path: Path):
    for folder in ("method", "model", "task", "training", "recipe", "launch", "log"):
        (tmp_path / folder).mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [_self_, method: mine]\n")
    (tmp_path / "method" / "mine.yaml").write_text("name: mine\n  alpha: 3\n")
    with pytest.raises(ConfigError, match=r"mapping values are not allowed here \(.*mine.yaml, line 2\)"):
        compose([], tmp_path)


def test_a_default_that_is_not_there_is_one_line(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("defaults: [_self_, method: gone]\n")
    with pytest.raises(ConfigError, match="method/gone"):
        compose([], tmp_path)
