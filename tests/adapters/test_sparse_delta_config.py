"""What a SparseDelta config may say, and how many numbers of a layer it means."""

import pytest
import torch
from peft import PeftConfig
from tests.adapters.tiny_models import sparse, tiny
from torch import nn

from tombola import SparseDeltaConfig
from tombola.adapters.sparse_delta_size import units_of

BLOCK = {"structure": "block", "block": 16}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, r"count=None, density=None, support='random': give exactly one of count, density"),
        ({"count": 3, "density": 0.1}, r"give exactly one of"),
        ({"count": 3, "support": "full"}, r"give exactly one of"),
        ({"count": 0}, r"count=0: 0 must be a whole number of at least 1"),
        ({"count": 2.5}, r"count=2\.5: 2\.5 must be a whole number"),
        ({"count": True}, r"must be a whole number"),
        ({"count": {"q_proj": -1}}, r"-1 must be a whole number of at least 0"),
        ({"density": 0.0}, r"density=0\.0: it must be above 0 and at most 1"),
        ({"density": 1.5}, r"density=1\.5: it must be above 0 and at most 1"),
        ({"count": 3, "block": 0}, r"block=0: it must be a whole number of at least 1"),
        ({"count": 3, "structure": "blok"}, r"structure='blok' is unknown.*element, block; did you mean 'block'\?"),
        ({"support": "ful"}, r"support='ful' is unknown.*did you mean 'full'"),
        ({"count": 3, "delta_init": "zero"}, r"delta_init='zero' is unknown.*did you mean 'zeros'"),
        ({"count": 3, "values_dtype": "float16"}, r"values_dtype='float16' is unknown"),
        ({"count": 3, "layers_pattern": "h"}, r"layers_pattern is given without layers_to_transform"),
    ],
)
def test_a_config_that_cannot_be_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        SparseDeltaConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "shape", "units"),
    [
        ({"count": 7}, (4, 6), 7),
        ({"count": 24}, (4, 6), 24),
        ({"support": "full"}, (4, 6), 24),
        ({"density": 0.29}, (10, 10), 29),  # 28.999... in binary
        ({"density": 0.1}, (9216, 3072), 2831155),  # Phi-3's fused projection: times 32 layers 90,596,960
        ({"density": 1.0}, (4, 6), 24),
        ({"count": 512, **BLOCK}, (32, 64), 2),
        ({"support": "full", **BLOCK}, (32, 64), 8),
        ({"density": 0.1, **BLOCK}, (768, 768), 230),  # floor(floor(58982.4) / 256)
        ({"density": 0.4, **BLOCK}, (32, 64), 3),
        ({"count": {"a": 5, "b.a": 6, "c": 0}}, (4, 6), 6),
        ({"count": {"x": 5, "layer.b.a": 0}}, (4, 6), 0),
    ],
)
def test_units_of_a_layer(settings, shape, units):
    assert units_of(SparseDeltaConfig(**settings), "layer.b.a", *shape) == units


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"count": 2049}, r"count=2049 is more than the layer a\.b.*32 rows and 64 columns, has: at most 2048"),
        ({"count": 300, **BLOCK}, r"count=300 for the layer a\.b.*no whole number of 16 x 16 blocks.*256 or 512"),
        ({"count": 100, **BLOCK}, r"multiple of 256; the nearest that fit: 256"),
        ({"count": 81, **BLOCK, "block": 9}, r"block=9 does not divide the layer a\.b.*32 rows and 64 col.*4, 8, 16"),
        ({"density": 0.1, **BLOCK}, r"density=0\.1 leaves nothing of the layer a\.b.*one 16 x 16 block is 0\.125 of"),
        ({"density": 1e-5}, r"leaves nothing of the layer a\.b.*one element is 0\.000488 of it"),
        ({"count": {"c": 3}}, r"count names no number for the layer a\.b: it has c\. Add the layer, with 0"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_a_layer_is_refused_by_its_name(settings, says):
    with pytest.raises(ValueError, match=says):
        units_of(SparseDeltaConfig(**settings), "a.b", 32, 64)


def test_a_layer_that_does_not_fit_leaves_the_model_whole():
    base = tiny("llama")
    before = [type(module) for module in base.modules()]
    with pytest.raises(ValueError, match=r"block=32 does not divide the layer model\.layers\.0\.self_attn\.k_proj"):
        sparse(base, target_modules=["q_proj", "k_proj"], support="full", structure="block", block=32)
    assert [type(module) for module in base.modules()] == before


def test_layers_that_are_not_linear_are_refused():
    with pytest.raises(ValueError, match=r"the layer 0 is of type Embedding, which cannot be adapted"):
        sparse(nn.Sequential(nn.Embedding(4, 4)), target_modules=["0"])


def test_a_config_is_saved_and_read(tmp_path):
    config = SparseDeltaConfig(target_modules=["v", "q"], count={"b": 3, "a": 0}, gate=True, values_dtype="bfloat16")
    config.save_pretrained(str(tmp_path))
    read = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(read, SparseDeltaConfig)
    assert read.to_dict() == config.to_dict()


@pytest.mark.parametrize("settings", [{"density": 0.1}, {"support": "full", "gate": True, "delta_init": "normal"}])
def test_on_the_meta_device_nothing_is_drawn_and_nothing_allocated(settings):
    with torch.device("meta"):
        base = tiny("llama")
    state = torch.get_rng_state()
    model = sparse(base, target_modules="all-linear", **settings)
    assert all(tensor.is_meta for name, tensor in model.state_dict().items() if "sparse_delta" in name)
    assert torch.equal(torch.get_rng_state(), state)
