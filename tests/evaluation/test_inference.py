from types import SimpleNamespace

import pytest
import torch

from tombola.evaluation.inference import evaluating, pad_id, padded


def test_modes_and_cache_are_put_back(llama):
    net = llama.net
    net.train()
    net.model.layers[0].eval()
    net.config.use_cache = False
    before = [module.training for module in net.modules()]

    def use_and_fail():
        with evaluating(net):
            assert not any(module.training for module in net.modules())
            assert net.config.use_cache is True
            assert torch.is_inference_mode_enabled()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        use_and_fail()
    assert [module.training for module in net.modules()] == before
    assert net.config.use_cache is False
    net.eval()
    net.config.use_cache = True


def test_padding_on_either_side():
    left = padded([[5, 6, 7], [8]], 0, "left", torch.device("cpu"))
    right = padded([[5, 6, 7], [8]], 0, "right", torch.device("cpu"))
    assert left["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert left["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert "position_ids" not in right


@pytest.mark.parametrize(("pad", "eos", "expected"), [(3, 2, 3), (None, 2, 2), (None, None, 0), (0, 2, 0)])
def test_what_pads(pad, eos, expected):
    assert pad_id(SimpleNamespace(pad_token_id=pad, eos_token_id=eos)) == expected
