from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tombola.evaluation.classify import classes, head_outputs, image_outputs, values


def test_padded_rows_get_the_logits_they_get_alone(roberta):
    texts = ("a", "some words", "rather more words than before")
    rows = [{"input_ids": roberta.processor(text)["input_ids"]} for text in texts]
    with torch.no_grad():
        together = head_outputs(roberta.net, rows, roberta.processor)
        alone = torch.cat([roberta.net(input_ids=torch.tensor([row["input_ids"]])).logits for row in rows])
    assert together.shape == (3, 3)
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.std() > 1e-3


def test_the_types_of_pairs_are_told_to_the_model():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    net = BertForSequenceClassification(BertConfig(**shape, vocab_size=32, initializer_range=0.3)).eval()
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=None)
    ids, types = [[1, 5, 2, 6, 2], [1, 7, 2, 2]], [[0, 0, 0, 1, 1], [0, 0, 0, 1]]
    pairs = [{"input_ids": i, "token_type_ids": t} for i, t in zip(ids, types, strict=True)]
    with torch.no_grad():
        together, untold = (head_outputs(net, rows, tokenizer) for rows in (pairs, [{"input_ids": i} for i in ids]))
        inputs = [(torch.tensor([i]), torch.tensor([t])) for i, t in zip(ids, types, strict=True)]
        alone = torch.cat([net(input_ids=i, token_type_ids=t).logits for i, t in inputs])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together, untold, atol=1e-3)


def test_images(vit):
    images = [np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8) for seed in range(2)]
    with torch.no_grad():
        together = image_outputs(vit.net, images, vit.processor)
        pixels = vit.processor(images=images[1], return_tensors="pt")["pixel_values"]
        assert torch.allclose(together[1], vit.net(pixel_values=pixels).logits[0], atol=1e-5)
    assert together.shape == (2, 3)


def test_reading_the_head():
    assert classes(torch.tensor([[0.1, 0.9, 0.2], [3.0, -1.0, 2.0]])) == [1, 0]
    assert values(torch.tensor([[0.5], [-2.0]])) == pytest.approx([0.5, -2.0])
