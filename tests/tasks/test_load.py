from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from tombola.tasks import DataError, Math, Task, TextualDigits, TextualMnist, load_task

LOADERS = {
    "tombola.tasks.Math": Math,
    "tombola.tasks.TextualDigits": TextualDigits,
    "tombola.tasks.TextualMnist": TextualMnist,
}
CONF = Path(__file__).resolve().parents[2] / "conf/task"
KINDS = ("classify", "regress", "choose", "generate", "probe")
ROLES = {"encoder", "decoder", "image_encoder"}
CARD = [
    *("textual_digits", "textual_mnist", "math", "commonsense", "flan/flan20", "probes/forgetting"),
    *(f"glue/{name}" for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")),
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
        assert LOADERS[config["_target_"]].name == name


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
    with pytest.raises(DataError, match=r"task=glue/cola: its loader is yet to come; plan=true works"):
        load_task(config_of("glue/cola"), role="encoder")
