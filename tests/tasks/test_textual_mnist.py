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


def test_the_published_files(repository, data_folder):
    from omegaconf import OmegaConf

    config = OmegaConf.load(repository / "conf/task/textual_mnist.yaml")
    task = TextualMnist(data_dir=str(data_folder / "mnist"), checksums=OmegaConf.to_container(config.checksums))
    rows = config.rows
    assert (len(task._train[1]), len(task.validation())) == (rows.train, rows.validation)
    assert len(task.tests()["test"]) == rows.test.test
