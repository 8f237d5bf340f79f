import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from omegaconf import OmegaConf
from PIL import Image

from tombola.evaluation.classify import classes
from tombola.tasks import DataError, Example, Images, load_task
from tombola.tasks.idx import read_idx

URL = "hf://datasets/org/data@main"


def local(folder, **options):
    return Images(**{"data_set": "cifar10", "classes": 3, "stem": "cifar10", "data_dir": str(folder), **options})


def test_idx_files_are_images_with_their_labels(image_folder):
    task = local(image_folder)
    train, test = task.train(), task.tests()["test"]
    assert (len(train), len(test), task.validation()) == (9, 6, [])
    assert [example.gold for example in test] == [0, 1, 2, 0, 1, 2]
    pixels = read_idx("t", image_folder / "cifar10-train-images-idx4-ubyte.gz", 4)
    assert np.array_equal(np.asarray(train[4].image), pixels[4])
    assert train[4].image.crop_scale == (0.9, 1.0)
    assert task.data_note == "images of task.data_dir: 9 train, 6 test"
    assert task.name == "vision/cifar10"


def test_names_of_classes_are_compared_with_the_labels(image_folder):
    (image_folder / "cifar10-classes.json").write_text(json.dumps(["cat", "dog", "owl"]))
    assert len(local(image_folder).train()) == 9
    with pytest.raises(
        DataError, match=r"cifar10-classes\.json has 3 classes, and task\.labels is 10: type task\.label"
    ):
        local(image_folder, classes=10)
    (image_folder / "cifar10-classes.json").write_text('{"cat": 0}')
    with pytest.raises(DataError, match=r"classes\.json is no list of texts; expected the names of the classes"):
        local(image_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role": "encoder"}, "expected a model of role image_encoder, got encoder"),
        ({"crop_scale": [0.9, 1.1]}, r"task\.crop_scale=\[0\.9, 1\.1\]; expected two shares in \(0, 1\], or null"),
        ({"crop_scale": [1.0]}, r"task\.crop_scale=\[1\.0\]; expected two shares"),
        ({"classes": 2}, r"labels-idx1-ubyte\.gz row 2 has label 2; expected 0 to 1, or type task\.labels=N"),
        ({"stem": "gtsrb"}, r"no file .*gtsrb-train-images-idx4-ubyte\.gz; expected"),
        ({"validation": True}, r"no file .*cifar10-validation-images-idx4-ubyte\.gz; expected"),
        ({"data_dir": None}, r"no pinned source: type task\.data_dir=DIR, a folder with cifar10-\* files"),
    ],
)
def test_wrong_options(image_folder, options, message):
    with pytest.raises(DataError, match=message):
        local(image_folder, **options)


def test_files_that_do_not_belong_together(image_folder, write_array):
    labels = image_folder / "cifar10-test-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    write_array(labels, np.zeros(5))
    with pytest.raises(DataError, match=r"test-images-idx4-ubyte\.gz has 6 images, but .*test-labels.*\.gz 5 labels"):
        local(image_folder)
    labels.write_bytes(whole)
    write_array(image_folder / "cifar10-test-images-idx4-ubyte.gz", np.zeros((6, 12, 10, 1)))
    with pytest.raises(DataError, match=r"test-images-idx4-ubyte\.gz has 1 channels; expected 3, RGB"):
        local(image_folder)


def pictures(modes, names=("cat", "dog"), field="img"):
    """A table as the hub has it: encoded images of any mode, and labels with the names of the classes."""
    images = [Image.fromarray(np.full((6, 5, 3), 40 * n, np.uint8)).convert(mode) for n, mode in enumerate(modes)]
    features = Features({field: ImageFeature(), "label": ClassLabel(names=list(names))})
    return Dataset.from_dict({field: images, "label": [n % 2 for n in range(len(modes))]}, features=features)


def of_hub(**options):
    fields = {"data_set": "cifar10", "stem": "cifar10", "folder": "plain_text", "image_field": "img", "classes": 2}
    return Images(**{**fields, "url": URL, **options})


def test_images_of_the_hub_are_decoded_to_rgb(hub_cache):
    files = {f"plain_text/{part}-00000-of-00001.parquet": pictures(["RGB", "L", "RGBA"]) for part in ("train", "test")}
    hub_cache("org/data", files)
    task = of_hub()
    train = task.train()
    assert [example.target for example in train] == [0, 1, 0]
    assert [np.asarray(example.image).shape for example in train] == [(6, 5, 3)] * 3
    assert [int(np.asarray(example.image)[0, 0, 0]) for example in train] == [0, 40, 80]
    assert task.data_note is None


def test_the_hubs_own_validation_split(hub_cache):
    parts = {"train": 3, "validation": 2, "test": 1}
    hub_cache("org/data", {f"data/{part}-00000-of-00001.parquet": pictures(["RGB"] * n) for part, n in parts.items()})
    task = of_hub(folder="data", validation=True)
    assert (len(task.train()), len(task.validation()), len(task.tests()["test"])) == (3, 2, 1)


def test_the_hubs_classes_are_compared_with_the_labels(hub_cache):
    hub_cache("org/data", {"plain_text/train-00000-of-00001.parquet": pictures(["RGB"] * 2)})
    with pytest.raises(
        DataError, match=r"org/data@main plain_text/train-\*\.parquet has 2 classes, and task\.labels is"
    ):
        of_hub(classes=4)


def test_an_image_that_cannot_be_decoded_is_named(hub_cache):
    torn = pictures(["RGB"] * 2).cast_column("img", ImageFeature(decode=False)).to_list()
    torn[1]["img"] = {"bytes": torn[1]["img"]["bytes"][:40], "path": None}
    table = Dataset.from_list(torn, features=pictures(["RGB"]).features)
    hub_cache("org/data", {f"plain_text/{part}-00000-of-00001.parquet": table for part in ("train", "test")})
    task = of_hub()
    np.asarray(task.train()[0].image)
    with pytest.raises(DataError, match=r"vision/cifar10: row 1 of the train images cannot be decoded"):
        np.asarray(task.train()[1].image)


# A head's logits, its class, the gold class: 24 rows, 13 of them right.
TOP_1 = [
    ([1.0, 0.0, 0.0], 0, 0),
    ([0.0, 1.0, 0.0], 1, 1),
    ([0.0, 0.0, 1.0], 2, 2),
    ([1.0, 0.0, 0.0], 0, 1),
    ([0.0, 1.0, 0.0], 1, 2),
    ([0.0, 0.0, 1.0], 2, 0),
    ([0.0, 0.0, 0.0], 0, 0),  # the first of equals
    ([0.0, 0.0, 0.0], 0, 2),
    ([2.0, 3.0, 3.0], 1, 1),
    ([2.0, 3.0, 3.0], 1, 2),  # being second counts for nothing
    ([-1.0, -2.0, -3.0], 0, 0),
    ([-3.0, -2.0, -1.0], 2, 2),
    ([-1.0, -2.0, -3.0], 0, 2),
    ([1e4, 1e4 + 1, 0.0], 1, 1),
    ([1e-6, 2e-6, 0.0], 1, 1),
    ([0.1, 0.2, 0.3], 2, 1),
    ([float("-inf"), 0.0, 1.0], 2, 2),
    ([float("inf"), 0.0, 1.0], 0, 0),
    ([0.5, 0.4999999, 0.0], 0, 0),
    ([0.5, 0.4999999, 0.0], 0, 1),
    ([3.0, 2.0, 1.0], 0, 1),
    ([3.0, 2.0, 1.0], 0, 0),
    ([9.0, 8.0, 9.5], 2, 0),
    ([9.0, 9.5, 8.0], 1, 0),
]


def test_top_1(image_folder):
    task = local(image_folder)
    read = classes(torch.tensor([logits for logits, _, _ in TOP_1]))
    assert read == [answer for _, answer, _ in TOP_1]
    for (logits, answer, gold), found in zip(TOP_1, read, strict=True):
        assert task.measure([Example("", gold, gold)], [found]) == {"accuracy": float(answer == gold)}, logits
    examples = [Example("", gold, gold) for _, _, gold in TOP_1]
    assert task.measure(examples, read) == {"accuracy": 13 / 24}
    with pytest.raises(DataError, match="no examples to measure"):
        task.measure([], [])


@pytest.mark.parametrize(("name", "labels", "train", "test"), [("cifar10", 10, 1000, 500), ("gtsrb", 43, 860, 430)])
def test_the_default_config_works_on_the_published_files(repository, data_folder, name, labels, train, test):
    config = OmegaConf.to_container(OmegaConf.load(repository / f"conf/task/vision/{name}.yaml"), resolve=True)
    task = load_task({**config, "data_dir": str(data_folder / "images")}, role="image_encoder")
    assert (len(task.train()), len(task.tests()["test"])) == (train, test)
    assert {example.gold for example in task.train()} == set(range(labels))


def test_ten_of_the_47_textures_ask_for_their_number_of_classes(repository, data_folder):
    config = OmegaConf.load(repository / "conf/task/vision/dtd.yaml")
    config.data_dir = str(data_folder / "images")
    with pytest.raises(
        DataError, match=r"dtd10-classes\.json has 10 classes, and task\.labels is 47: type task\.labels=10"
    ):
        load_task(OmegaConf.to_container(config, resolve=True), role="image_encoder")
    config.labels = 10
    task = load_task(OmegaConf.to_container(config, resolve=True), role="image_encoder")
    assert (len(task.train()), len(task.tests()["test"])) == (400, 160)
