"""What a masked LoRA config may say, how much of a layer it means, and what is saved of it."""

import json

import pytest
import torch
from peft import PeftConfig, get_peft_model
from tests.adapters.tiny_models import tiny
from torch import nn

from tombola import MaskedLoraConfig
from tombola.adapters import masked_lora_counts

MASK = [True, False, True, True]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kept_rows": 0.0}, r"kept_rows=0\.0: it must be a share above 0\.0 and at most 1\.0 \(all\), or a dict"),
        ({"kept_cols": 1.5}, r"kept_cols=1\.5: it must be a share"),
        ({"kept_rows": 1}, r"kept_rows=1: it must be a share"),
        ({"kept_rows": MASK}, r"kept_rows=\[True, .*: it must be a share.*or a dict from the ends of layers' paths"),
        ({"kept_rows": {"q": -0.5}}, r"kept_rows\['q'\]=-0\.5: it must be a share above 0\.0 .* or a list of bools"),
        ({"kept_cols": {"q": -1}}, r"kept_cols\['q'\]=-1: it must be a share.*, a count of at least 0"),
        ({"kept_cols": {"q": True}}, r"kept_cols\['q'\]=True: it must be a share"),
        ({"kept_cols": {"q": "half"}}, r"kept_cols\['q'\]='half': it must be a share"),
        ({"kept_rows": {"q": [1, 0]}}, r"kept_rows\['q'\] has numbers of torch\.int64: a mask is of bools"),
        ({"kept_rows": {"q": torch.ones(3)}}, r"kept_rows\['q'\] has numbers of torch\.float32: a mask is of bools"),
        ({"granularity": "elements"}, r"granularity='elements' is unknown.*row_col, element; did you mean 'element'\?"),
        ({"r": 0}, r"r=0: it must be a whole number of at least 1"),
        ({"r": 2.0}, r"r=2\.0: it must be a whole number of at least 1"),
        ({"lora_dropout": 1.0}, r"lora_dropout=1\.0: it must be at least 0 and below 1"),
        ({"layers_pattern": "h"}, r"layers_pattern is given without layers_to_transform"),
    ],
)
def test_a_config_that_cannot_be_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        MaskedLoraConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, (4, 6)),
        ({"kept_rows": 0.5, "kept_cols": 0.5}, (2, 3)),
        ({"kept_rows": 0.3, "kept_cols": 0.7}, (1, 4)),
        ({"kept_rows": 0.01, "kept_cols": 0.01}, (1, 1)),
        ({"kept_rows": 0.5, "granularity": "element"}, (6, 18)),
        ({"kept_rows": 0.3, "kept_cols": 0.7, "granularity": "element"}, (4, 13)),
        ({"kept_rows": {"a": 3, "b.a": 1, "c": 0}}, (1, 6)),
        ({"kept_cols": {"x": 3, "layer.b.a": 0}}, (4, 0)),
        ({"kept_rows": {"a": MASK}, "kept_cols": {"a": 1.0}}, (3, 6)),
        ({"kept_rows": {"a": [False] * 4}, "kept_cols": {"a": 1}}, (0, 1)),
        ({"kept_rows": {"a": torch.eye(4, 3).bool()}, "granularity": "element"}, (3, 18)),
    ],
)
def test_counts_of_a_layer(settings, counts):
    assert masked_lora_counts(MaskedLoraConfig(r=3, **settings), "layer.b.a", 4, 6) == counts


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kept_rows": {"a": 5}}, r"kept_rows=5 is more than the layer a\.b\.a has: at most 4"),
        ({"kept_cols": {"a": 19}, "granularity": "element"}, r"kept_cols=19 is more than .* has: at most 18"),
        ({"kept_rows": {"a": [True] * 6}}, r"kept_rows has 6 bools for the layer a\.b\.a: it needs 4, one for each"),
        (
            {"kept_cols": {"c": 3}},
            r"kept_cols names nothing for the layer a\.b\.a: it has c\. Add the layer, with 1",
        ),
        ({"kept_cols": {}}, r"kept_cols names nothing for the layer a\.b\.a: it has nothing"),
    ],
)
def test_a_config_that_does_not_fit_a_layer_is_refused_by_its_name(settings, says):
    with pytest.raises(ValueError, match=says):
        masked_lora_counts(MaskedLoraConfig(r=3, **settings), "a.b.a", 4, 6)


def test_a_layer_that_does_not_fit_leaves_the_model_whole():
    base = tiny("llama")
    before = [type(module) for module in base.modules()]
    config = MaskedLoraConfig(target_modules=["q_proj", "k_proj"], kept_rows={"q_proj": 20, "k_proj": 20})
    with pytest.raises(ValueError, match=r"kept_rows=20 is more than the layer model\.layers\.0\.self_attn\.k_proj"):
        get_peft_model(base, config)
    assert [type(module) for module in base.modules()] == before


def test_layers_that_are_not_linear_are_refused():
    with pytest.raises(ValueError, match=r"the layer 0 is of type Embedding, which cannot be adapted"):
        get_peft_model(nn.Sequential(nn.Embedding(4, 4)), MaskedLoraConfig(target_modules=["0"]))


def test_a_config_is_saved_and_read_with_counts_for_its_masks(tmp_path):
    kept = {"a": MASK, "b": 2, "c": 0.25, "d": torch.tensor([[True], [True]])}
    config = MaskedLoraConfig(target_modules=["v", "q"], kept_rows=kept, kept_cols=0.5, lora_alpha=3.5)
    config.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["kept_rows"] == {"a": 3, "b": 2, "c": 0.25, "d": 2}
    assert saved["kept_cols"] == 0.5
    assert saved["peft_type"] == "MASKED_LORA"
    read = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(read, MaskedLoraConfig)
    assert read.to_dict() == config.to_dict()
