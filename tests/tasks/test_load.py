from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from tombola.tasks import (
    Commonsense,
    DataError,
    Flan,
    Glue,
    Images,
    Math,
    Probes,
    Task,
    TextualDigits,
    TextualMnist,
    load_task,
)

LOADERS = {
    "tombola.tasks.Flan": Flan,
    "tombola.tasks.Images": Images,
    "tombola.tasks.Commonsense": Commonsense,
    "tombola.tasks.Glue": Glue,
    "tombola.tasks.Math": Math,
    "tombola.tasks.Probes": Probes,
    "tombola.tasks.TextualDigits": TextualDigits,
    "tombola.tasks.TextualMnist": TextualMnist,
}
CONF = Path(__file__).resolve().parents[2] / "conf/task"
KINDS = ("classify", "regress", "choose", "generate", "probe")
ROLES = {"encoder", "decoder", "image_encoder"}
GLUE = [f"glue/{name}" for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")]
CARD = [
    *("textual_digits", "textual_mnist", "math", "commonsense", "flan/flan20", "probes/forgetting"),
    *GLUE,
    *(f"vision/{name}" for name in ("cars", "dtd", "eurosat", "gtsrb", "resisc45", "sun397", "svhn")),
    *("vision/cifar10", "vision/flowers102"),
]


def config_of(name):
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=True)


def test_every_task_of_the_card_has_its_facts():
    assert sorted(str(file.relative_to(CONF).with_suffix("")) for file in CONF.rglob("*.yaml")) == sorted(CARD)


@pytest.mark.parametrize("name", CARD)
def test_facts_are_of_the_right_kind(name):
    config = config_of(name)
    assert config["name"] == name
    assert config["licence"]
    assert config["kind"] in KINDS
    assert config["roles"]
    assert set(config["roles"]) <= ROLES
    assert config["metrics"]
    assert config["labels"] == 1 if config["kind"] == "regress" else config["labels"] >= 0
    assert {"train", "validation", "test"} <= set(config["rows"])
    assert all(rows is None or rows > 0 for rows in config["rows"]["test"].values())
    assert "train" in config["tokens"]
    assert set(config.get("optional_files", [])) <= set(config["files"])
    if config["_target_"]:
        assert LOADERS[config["_target_"]].version == config["version"]
        assert getattr(LOADERS[config["_target_"]], "name", name) == name


PILORA = ("cars", "dtd", "eurosat", "gtsrb", "resisc45", "sun397", "svhn")


def test_the_image_tasks_are_pinned_and_name_themselves():
    """Splits of table 3: GOAT's and task arithmetic's."""
    facts = {name: config_of(f"vision/{name}") for name in (*PILORA, "cifar10", "flowers102")}
    for name, config in facts.items():
        assert len(config["revision"]) == 40, name
        assert config["url"] == f"hf://datasets/{config['repo']}@{config['revision']}"
        assert (config["data_set"], config["classes"]) == (name, config["labels"])
    assert [facts[name]["labels"] for name in PILORA] == [196, 47, 10, 43, 45, 397, 10]
    assert (facts["cars"]["rows"]["train"], facts["cars"]["rows"]["test"]["test"]) == (8144, 8041)


def test_an_image_config_becomes_its_task(image_folder):
    config = {**config_of("vision/cifar10"), "classes": 3, "data_dir": str(image_folder), "crop_scale": None}
    task = load_task(config, role="image_encoder")
    assert isinstance(task, Images)
    assert (task.name, len(task.train()), task.train()[0].image.crop_scale) == ("vision/cifar10", 9, None)


def test_a_flan_config_becomes_its_task(flan_folder):
    config = {**config_of("flan/flan20"), "data_dir": str(flan_folder), "task_name": "held_in"}
    task = load_task(config, role="decoder")
    assert (list(task.tests()), task.generation.max_new_tokens) == (["one", "two"], 64)
    assert task.format.prompt_tokens == 2048
    assert set(task.measure(task.tests()["one"], ["a", "b"])) == set(config["metrics"])


def test_the_papers_thirty_tasks_are_named():
    config = config_of("flan/flan20")
    assert (len(set(config["held_in"])), len(set(config["held_out"]))) == (20, 10)


def test_a_config_becomes_its_task(mnist_folder):
    digits: Task = load_task(config_of("textual_digits"), role="encoder")
    assert isinstance(digits, TextualDigits)
    assert len(digits.train()) == config_of("textual_digits")["rows"]["train"]
    mnist = load_task({**config_of("textual_mnist"), "data_dir": str(mnist_folder), "checksums": None}, role="decoder")
    assert isinstance(mnist, TextualMnist)


def test_a_math_config_becomes_its_task(math_folder):
    config = {**config_of("math"), "data_dir": str(math_folder), "validation_rows": 4, "num_beams": 1}
    task = load_task(config, role="decoder")
    assert task.generation.num_beams == 1
    assert set(task.measure(task.tests()["AQuA"], list("ABCDE"))) == set(config["metrics"])


def test_missing_data_is_one_clear_error(tmp_path):
    with pytest.raises(
        DataError, match=r"math: .* has no ft-training_set/math_10k\.json or ft-training_set/math_human_10k"
    ):
        load_task({**config_of("math"), "data_dir": str(tmp_path)}, role="decoder")


def test_an_option_that_the_loader_does_not_have():
    with pytest.raises(InstantiationException, match="unexpected keyword argument 'colour'"):
        load_task({**config_of("textual_digits"), "colour": True}, role="encoder")


def test_a_loader_that_is_yet_to_come_says_so():
    config = {**config_of("textual_digits"), "_target_": None}
    with pytest.raises(DataError, match=r"task=textual_digits: its loader is yet to come; plan=true works"):
        load_task(config, role="encoder")
