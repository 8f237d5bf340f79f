"""The tiny models' tokenizer, and padding for decoders that have no padding token."""

import numpy as np
import pytest
from PIL import Image

from tombola.models.architecture import empty_net
from tombola.models.processors import agree_on_padding, byte_tokenizer, tiny_processor


@pytest.mark.parametrize(("role", "ends"), [("encoder", ("<s>", "</s>")), ("decoder", ("<s>", ""))])
def test_every_byte_is_a_token_and_comes_back(role, ends):
    tokenizer = byte_tokenizer(role, 512)
    text = "12 + 345 = hé\n\tworld ☃ </s"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode()) + sum(map(bool, ends))
    assert tokenizer.decode(ids) == ends[0] + text + ends[1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer) == 260


def test_a_digit_is_one_token():
    tokenizer = byte_tokenizer("decoder", 512)
    for digit in "0123456789":
        assert len(tokenizer(digit, add_special_tokens=False)["input_ids"]) == 1


def test_decoders_pad_left_and_encoders_right():
    for role, padded in (("decoder", [0, 0, 1]), ("encoder", [1, 20, 2])):
        batch = byte_tokenizer(role, 512)(["1", "123"], padding=True)
        assert batch["input_ids"][0][:3] == padded


def test_tiny_text_models_know_every_token(model_of):
    for name in ("tiny_llama", "tiny_phi3", "tiny_roberta"):
        model = model_of(name)
        tokenizer = tiny_processor(model)
        values = model["architecture"]
        assert len(tokenizer) == values["vocab_size"]
        assert tokenizer.pad_token_id == values["pad_token_id"]
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (values["bos_token_id"], values["eos_token_id"])


def test_an_image_becomes_the_tiny_models_size(model_of):
    image = Image.fromarray(np.full((50, 40, 3), 255, dtype=np.uint8))
    pixels = tiny_processor(model_of("tiny_vit"))(image, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels.max() == pytest.approx(1.0)  # white, normalised with mean and standard deviation 0.5


@pytest.mark.parametrize(("unknown", "expected"), [("<unk>", "<unk>"), (None, "</s>")])
def test_padding_is_a_token_that_is_there(model_of, unknown, expected):
    net = empty_net(model_of("tiny_llama"), kind="generate", labels=0)
    tokenizer = byte_tokenizer("decoder", 512)
    tokenizer.pad_token, tokenizer.unk_token = None, unknown
    size = len(tokenizer)
    agree_on_padding(net, tokenizer)
    assert tokenizer.pad_token == expected
    assert len(tokenizer) == size
    assert net.config.pad_token_id == net.generation_config.pad_token_id == tokenizer.pad_token_id


def test_a_padding_token_of_the_models_own_stays(model_of):
    net = empty_net(model_of("tiny_llama"), kind="generate", labels=0)
    tokenizer = byte_tokenizer("decoder", 512)
    agree_on_padding(net, tokenizer)
    assert tokenizer.pad_token == "<pad>"
