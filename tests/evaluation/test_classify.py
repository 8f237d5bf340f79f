import numpy as np
import pytest
import torch

from tombola.evaluation.classify import classes, head_outputs, image_outputs, values


def test_padded_rows_get_the_logits_they_get_alone(roberta):
    rows = [roberta.processor(text)["input_ids"] for text in ("a", "some words", "rather more words than before")]
    with torch.no_grad():
        together = head_outputs(roberta.net, rows, roberta.processor)
        alone = torch.cat([roberta.net(input_ids=torch.tensor([row])).logits for row in rows])
    assert together.shape == (3, 3)
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.std() > 1e-3


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
