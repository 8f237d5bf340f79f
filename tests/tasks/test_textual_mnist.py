from collections import Counter

import numpy as np
import pytest

from tombola.tasks import DataError, TextualMnist, encode, prompt_text
from tombola.tasks.textual_mnist import decode_image, encode_image, quantise


def test_bins_are_uniform():
    levels = quantise(np.arange(256, dtype=np.uint8))
    assert levels[[0, 25, 26, 51, 52, 255]].tolist() == [0, 0, 1, 1, 2, 9]
    assert set(np.bincount(levels)) == {25, 26}


def test_white_and_black():
    assert encode_image(np.full((28, 28), 255, np.uint8)) == "\n".join(["9" * 28] * 28)
    assert encode_image(np.zeros((28, 28), np.uint8)) == "\n".join(["0" * 28] * 28)


def test_decoding_keeps_the_bins():
    image = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    text = encode_image(image)
    assert np.array_equal(quantise(decode_image(text)), quantise(image))
    assert encode_image(decode_image(text)) == text


def test_one_percent_is_kept_for_validation(mnist_folder):
    task = TextualMnist(data_dir=str(mnist_folder))
    train, validation, test = task.train(), task.validation(), task.tests()["test"]
    assert (len(train), len(validation), len(test)) == (297, 3, 20)
    assert not {example.prompt for example in train} & {example.prompt for example in validation}
    assert [example.gold for example in test] == [str(number % 10) for number in range(20)]


def test_loss_on_the_digit_alone_and_rows_are_never_cut(mnist_folder, chat_tokenizer):
    task = TextualMnist(data_dir=str(mnist_folder))
    (row,) = encode(task, task.validation()[:1], chat_tokenizer, max_length=2000)
    assert sum(label != -100 for label in row["labels"]) == 1
    assert row["labels"][-1] == row["input_ids"][-1]
    with pytest.raises(DataError, match=r"training\.max_length is 512"):
        encode(task, task.validation()[:1], chat_tokenizer, max_length=512)


def test_shots_are_solved_training_images(mnist_folder, chat_tokenizer):
    task = TextualMnist(data_dir=str(mnist_folder), shots=2)
    example = task.tests()["test"][0]
    text = prompt_text(example, task.format, chat_tokenizer)
    known = {shown.prompt: shown.target for shown in task.train()}
    assert [known[shot.prompt] for shot in example.shots] == [shot.answer for shot in example.shots]
    assert text.count("<|im_start|>user") == 3
    assert text.count("The digit is ") == 3
    assert text.endswith("The digit is ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role": "encoder"}, "expected a model of role decoder, got encoder"),
        ({"shots": -1}, r"task\.shots=-1; expected 0 to 297"),
        ({"checksums": {"t10k-labels-idx1-ubyte.gz": "abc"}}, r"t10k-labels.* has SHA-256 .*, expected abc"),
    ],
)
def test_wrong_options(mnist_folder, options, message):
    with pytest.raises(DataError, match=message):
        TextualMnist(data_dir=str(mnist_folder), **options)


def test_images_without_labels_are_refused(mnist_folder):
    (mnist_folder / "t10k-labels-idx1-ubyte.gz").write_bytes((mnist_folder / "train-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(DataError, match="t10k has 20 images but 300 labels"):
        TextualMnist(data_dir=str(mnist_folder))


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "t10k-images-idx3-ubyte.gz",
            np.zeros((20, 28, 27)),
            r"t10k has images of \(28, 27\) pixels; expected \(28, 28\)",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            [*range(10)] * 29 + [*range(9), 10],
            "train labels row 299 has label 10; expected",
        ),
    ],
)
def test_values_that_are_no_digits(mnist_folder, write_array, file, values, message):
    write_array(mnist_folder / file, np.array(values))
    with pytest.raises(DataError, match=message):
        TextualMnist(data_dir=str(mnist_folder))


# What a model says to an image of a seven, and whether that is the digit. It is asked for one token; whatever else
# comes is read as it is, and nothing is searched for in it.
SAID = [
    ("7", True),
    (" 7", True),  # vocabularies that join a space to the digit
    ("7 ", True),
    ("7\n", True),
    ("\t7", True),
    ("", False),
    (" ", False),
    ("1", False),
    ("7.", False),
    ("7.0", False),
    ("77", False),
    ("07", False),
    ("70", False),
    ("-7", False),
    ("+7", False),
    ("seven", False),
    ("Seven", False),
    ("The digit is 7", False),
    ("7 or 1", False),
    ("7<|im_end|>", False),  # the end of text is cut off before, with what follows it
    ("7</s> 3", False),
    ("７", False),  # full width
    ("٧", False),  # Arabic-Indic
    ("七", False),
    ("VII", False),
    ("<|im_end|>", False),
]


@pytest.mark.parametrize(("answer", "right"), SAID)
def test_only_the_digit_alone_is_right(mnist_folder, answer, right):
    task = TextualMnist(data_dir=str(mnist_folder))
    seven = task.tests()["test"][7]
    assert seven.gold == "7"
    assert task.measure([seven], [answer]) == {"accuracy": float(right)}


def published(repository, data_folder, **options):
    from omegaconf import OmegaConf

    config = OmegaConf.load(repository / "conf/task/textual_mnist.yaml")
    checksums = OmegaConf.to_container(config.checksums)
    return config.rows, TextualMnist(data_dir=str(data_folder / "mnist"), checksums=checksums, **options)


def test_the_published_files(repository, data_folder):
    rows, task = published(repository, data_folder)
    parts = {"train": task.train(), "validation": task.validation(), "test": task.tests()["test"]}
    assert {name: len(part) for name, part in parts.items()} == {"train": rows.train, "validation": 600, "test": 10_000}
    assert (rows.train, rows.test.test) == (59_400, 10_000)
    for part in parts.values():
        assert {example.gold for example in part} == set("0123456789")
        assert {len(example.prompt.split("\n\n")[1]) for example in part} == {28 * 28 + 27}
    counted = Counter(example.gold for part in (parts["train"], parts["validation"]) for example in part)
    assert counted["0"] == 5923  # of MNIST's 60,000


def test_five_shots_of_the_published_files(repository, data_folder, chat_tokenizer):
    _, task = published(repository, data_folder, shots=5)
    example = task.tests()["test"][0]
    assert (example.gold, len(example.shots)) == ("7", 5)
    assert not {shot.prompt for shot in example.shots} & {other.prompt for other in task.validation()}
    text = prompt_text(example, task.format, chat_tokenizer)
    assert text.count("<|im_start|>user") == 6
    assert text.endswith("<|im_start|>assistant\nThe digit is ")
