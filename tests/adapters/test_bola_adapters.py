"""Several adapters, their names, and switching between them."""

import copy
import pickle

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tests.adapters.tiny_models import batch, bola, layers, shake, tiny
from torch import Tensor, nn
from torch.nn import functional as F

from tombola import BolaConfig

NAMES = ["a", "ab", "b", "weight", "bola_scores", "default_2", "q_proj", "layers", "0"]
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def two(**settings: object) -> PeftModel:
    model = bola(tiny("llama").double(), target_modules=["q_proj", "down_proj"])
    model.add_adapter("other", BolaConfig(**{"target_modules": ["q_proj", "v_proj"], "k": 2, "alpha": 9.0, **settings}))
    shake(model)
    shake(model, "other", seed=11)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=batch("llama")["input_ids"]).logits


@pytest.mark.parametrize("training", [True, False])
def test_the_deltas_of_two_active_adapters_add_up(training):
    model = two().train(training)
    model.base_model.set_adapter(["default", "other"])
    layer = layers(model)[0]
    assert layer.active_adapters == ["default", "other"]
    x = torch.randn(5, 32, dtype=torch.float64)
    delta = layer.get_delta_weight("default") + layer.get_delta_weight("other")
    torch.testing.assert_close(layer(x), F.linear(x, layer.base_layer.weight + delta), rtol=1e-10, atol=1e-10)


def test_two_active_adapters_are_trained_together():
    model = two().train()
    model.base_model.set_adapter(["default", "other"])
    model(**batch("llama")).loss.backward()
    for layer in layers(model):
        for name in layer.bola_values:
            assert layer.bola_values[name].weight.grad.abs().max() > 0
            assert layer.bola_scores[name].weight.grad.abs().max() > 0


def test_an_added_adapter_waits_frozen_until_it_is_set():
    model = two()
    before = logits(model)
    assert torch.equal(before, logits(model))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".default." in name for name in trained)
    model.set_adapter("other")
    assert not torch.equal(logits(model), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".other." in name for name in trained)
    model.set_adapter("default")
    assert torch.equal(logits(model), before)


def test_a_disabled_adapter_leaves_the_base_bit_for_bit_in_both_modes():
    base = tiny("llama").double()
    for training in (True, False):
        model = two().train(training)
        expected = base.train(training)(**batch("llama")).logits
        with model.disable_adapter():
            assert torch.equal(model(**batch("llama")).logits, expected)
        assert not torch.equal(model(**batch("llama")).logits, expected)


def test_a_deleted_adapter_is_gone_and_the_other_takes_over():
    model = two()
    model.set_adapter("other")
    expected = logits(model)
    model.set_adapter("default")
    with pytest.warns(UserWarning, match="Setting active adapter to other"):
        model.delete_adapter("default")
    assert not any(".default" in name for name, _ in model.named_parameters())
    for layer in layers(model):
        assert "default" not in {*layer.bola_scores, *layer.bola_values, *layer.bola_dropout, *layer.bola_grid}
    torch.testing.assert_close(logits(model), expected)


def test_with_its_last_adapter_deleted_the_model_is_the_base():
    model = bola(tiny("llama").double().eval())
    shake(model)
    model.delete_adapter("default")
    inside = model.base_model.model  # PEFT's wrapper itself refuses to run without an adapter
    assert torch.equal(logits(inside), logits(tiny("llama").double().eval()))


def test_the_layer_status_knows_both_adapters():
    model = two()
    model.merge_adapter()
    status = {entry.name: entry for entry in model.get_layer_status()}
    entry = status["model.model.layers.0.self_attn.q_proj"]
    assert entry.available_adapters == ["default", "other"]
    assert entry.active_adapters == entry.merged_adapters == ["default"]
    assert entry.requires_grad == {"default": True, "other": False}
    assert model.get_model_status().trainable_params > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Adapter name")
def test_names_that_look_like_something_else_are_kept_apart(name, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(tiny("llama"), BolaConfig(target_modules=["q_proj"], k=2), adapter_name=name)
    model.add_adapter("default", BolaConfig(target_modules=["q_proj"], k=2))
    shake(model, name, seed=5)
    shake(model, "default", seed=6)
    expected = logits(model.eval())
    model.save_pretrained(tmp_path)
    folder = tmp_path if name == "default" else tmp_path / name
    loaded = PeftModel.from_pretrained(tiny("llama"), folder, adapter_name=name).eval()
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["values", "keys", "training", "forward", "with.dot", ""])
@pytest.mark.filterwarnings("ignore:Adapter name")
def test_names_that_torch_cannot_hold_are_refused_before_anything_is_changed(name):
    base = tiny("llama")
    with pytest.raises(ValueError, match=r"cannot be an adapter's name: it must not be empty, contain a dot"):
        get_peft_model(base, BolaConfig(target_modules=["q_proj"]), adapter_name=name)
    assert not layers(base)


@pytest.mark.filterwarnings("ignore:You are trying", "ignore:Already found")
def test_an_adapter_of_another_kind_can_lie_underneath():
    inner = get_peft_model(tiny("llama").double(), LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    expected = logits(inner.eval())
    outer = bola(inner.base_model.model, target_modules=["q_proj"]).eval()
    assert torch.equal(logits(outer), expected)
    shake(outer)
    layer = layers(outer)[0]
    x = torch.randn(5, 32, dtype=torch.float64)
    summed = layer.base_layer(x) + F.linear(x, layer.get_delta_weight("default"))
    torch.testing.assert_close(layer(x), summed, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_answers_like_the_original_and_shares_nothing(copied):
    model = bola(tiny("llama"), target_modules=["q_proj"])
    shake(model)
    model.merge_adapter()
    twin = copied(model)
    assert torch.equal(logits(twin.eval()), logits(model.eval()))
    twin.unmerge_adapter()
    assert layers(model)[0].merged
    layers(twin)[0].bola_values["default"].weight.data.zero_()
    assert layers(model)[0].bola_values["default"].weight.any()


def test_the_adapter_can_be_factored_into_a_lora():
    model = two()
    assert model.supports_lora_conversion()
