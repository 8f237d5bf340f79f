from collections import Counter

import numpy as np
import pytest

from tombola.tasks import DataError, TextualDigits, encode
from tombola.tasks.digits import quantise


def test_levels_are_rounded_ninths_of_the_ink():
    assert quantise(np.arange(17.0)).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8, 9]


def test_the_split_keeps_the_classes_shares_and_is_the_same_every_time():
    first, again = TextualDigits(role="encoder"), TextualDigits(role="encoder")
    train, test = first.train(), first.tests()["test"]
    assert (len(train), len(test), first.validation()) == (1437, 360, [])
    assert test == again.tests()["test"]
    shares = [Counter(example.target for example in part) for part in (train, test)]
    assert all(abs(shares[0][digit] / 1437 - shares[1][digit] / 360) < 0.003 for digit in range(10))
    assert sorted(shares[0]) == list(range(10))


def test_both_roles_see_the_same_images():
    encoder, decoder = TextualDigits(role="encoder"), TextualDigits(role="decoder")
    for seen, told in zip(encoder.tests()["test"], decoder.tests()["test"], strict=True):
        lines = told.prompt.split("\n\n")[1].split("\n")
        assert [len(line) for line in lines] == [8] * 8
        assert seen.prompt.replace(" ", "") == "".join(lines)
        assert str(seen.target) == told.target == told.gold


def test_an_encoder_reads_64_digits_and_its_special_tokens(word_tokenizer):
    task = TextualDigits(role="encoder")
    rows = encode(task, task.train()[:50], word_tokenizer, max_length=66)
    assert {len(row["input_ids"]) for row in rows} == {66}
    assert all(4 <= token <= 13 for row in rows for token in row["input_ids"][1:-1])


def test_a_decoder_bears_loss_on_the_digit_alone(chat_tokenizer):
    task = TextualDigits(role="decoder")
    example = task.train()[0]
    (row,) = encode(task, [example], chat_tokenizer, max_length=400)
    assert chat_tokenizer.decode(row["input_ids"]).endswith(f"<|im_start|>assistant\nThe digit is {example.target}")
    assert [place for place, label in enumerate(row["labels"]) if label != -100] == [len(row["labels"]) - 1]


def test_answers_that_are_no_digit_are_wrong():
    decoder, encoder = TextualDigits(role="decoder"), TextualDigits(role="encoder")
    told, seen = decoder.tests()["test"][:4], encoder.tests()["test"][:4]
    gold = [example.gold for example in told]
    assert decoder.measure(told, gold) == {"accuracy": 1.0}
    assert decoder.measure(told, [gold[0], "a", "", gold[3]]) == {"accuracy": 0.5}
    assert encoder.measure(seen, [example.gold for example in seen[:3]] + [-1]) == {"accuracy": 0.75}


def test_nothing_to_measure():
    with pytest.raises(DataError, match="no examples to measure"):
        TextualDigits(role="encoder").measure([], [])


def test_a_model_of_images_is_refused():
    with pytest.raises(DataError, match="expected a model of role encoder or decoder, got image_encoder"):
        TextualDigits(role="image_encoder")
