import pytest
import torch
from peft import TaskType
from tests.adapters.tiny_models import FAMILIES, batch, bola, layers, shake, tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from tombola import BolaConfig

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def trained(family: str = "llama", dtype: torch.dtype = torch.float64, **settings: object):
    model = bola(tiny(family).to(dtype), target_modules="all-linear" if family == "llama" else None, **settings).eval()
    shake(model)
    return model


def logits(model: nn.Module, family: str = "llama") -> Tensor:
    inputs = {key: value for key, value in batch(family).items() if key != "labels"}
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        return model(
            **{key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
        ).logits


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "bola_" not in name}


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_merge_and_unload_gives_a_plain_model_with_the_same_output(family, safe):
    model = trained(family, task_type=TaskType.SEQ_CLS if family == "roberta" else None)
    expected = logits(model, family)
    plain = model.merge_and_unload(safe_merge=safe)
    assert isinstance(plain, PreTrainedModel)
    assert plain.state_dict().keys() == tiny(family).state_dict().keys()
    torch.testing.assert_close(logits(plain, family), expected, **CLOSE)


def test_a_trained_compound_head_survives_the_merge():
    model = trained("roberta", task_type=TaskType.SEQ_CLS)
    head = model.base_model.model.classifier
    head.modules_to_save["default"].out_proj.weight.data.normal_()
    expected = logits(model, "roberta")
    plain = model.merge_and_unload()
    assert type(plain.classifier) is type(tiny("roberta").classifier)
    torch.testing.assert_close(logits(plain, "roberta"), expected, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unmerging_restores_every_bit(dtype):
    model = trained(dtype=dtype)
    for layer in layers(model):
        layer.base_layer.weight.data[::3] = -0.0  # a sign that adding and subtracting nothing would lose
    before, output = weights(model), logits(model)
    for _ in range(3):
        model.merge_adapter()
        assert not torch.equal(layers(model)[0].base_layer.weight, next(v for k, v in before.items() if "q_proj" in k))
        model.unmerge_adapter()
    after = weights(model)
    assert all(torch.equal(after[name].view(torch.uint8), value.view(torch.uint8)) for name, value in before.items())
    assert torch.equal(logits(model), output)


def test_a_merge_changes_the_drawn_blocks_and_no_other():
    model = trained(in_divs=4, out_divs=4)
    before = weights(model)
    layer, delta = layers(model)[0], layers(model)[0].get_delta_weight("default")
    model.merge_adapter()
    changed = layer.base_layer.weight != next(v for k, v in before.items() if "layers.0.self_attn.q_proj" in k)
    assert torch.equal(changed, delta != 0)


def test_two_adapters_merge_on_top_of_each_other_and_come_out_again():
    model = trained()
    model.add_adapter("other", BolaConfig(target_modules="all-linear", k=3, magnitude="constant"))
    shake(model, "other", seed=9)
    model.base_model.set_adapter(["default", "other"])
    before, both = weights(model), logits(model)
    model.merge_adapter(["default"])
    with pytest.warns(UserWarning, match="additionally merging other"):
        model.merge_adapter(["other"])
    assert layers(model)[0].merged_adapters == ["default", "other"]
    torch.testing.assert_close(logits(model), both, **CLOSE)
    model.unmerge_adapter()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    torch.testing.assert_close(logits(model), both, rtol=0, atol=0)


def test_a_bfloat16_merge_is_the_borrowed_forward_bit_for_bit():
    model = trained(dtype=torch.bfloat16).train()
    borrowed = model(**batch("llama")).logits.detach()
    model.merge_adapter()
    assert torch.equal(model(**batch("llama")).logits, borrowed)


def test_disabling_a_merged_adapter_unmerges_it():
    model = trained()
    base = tiny("llama").double().eval()
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base))
    assert not layers(model)[0].merged


def test_a_merged_model_can_be_moved_before_it_is_unmerged():
    model = trained(dtype=torch.float32)
    before = weights(model)
    model.merge_adapter()
    model.double()
    model.unmerge_adapter()
    assert all(torch.equal(value, before[name].double()) for name, value in weights(model).items())


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_a_safe_merge_refuses_what_is_not_finite_and_leaves_the_layer(merge):
    model = trained()
    layer = layers(model)[0]
    layer.bola_values["default"].weight.data[0, 0, 0] = float("nan")
    before = layer.base_layer.weight.clone()
    with pytest.raises(ValueError, match=r"merging the adapter 'default' would put NaN or infinity into the weights"):
        getattr(model, merge)(safe_merge=True)
    assert torch.equal(layer.base_layer.weight, before)
    assert not layer.merged_adapters


def test_unmerging_what_is_not_merged_warns():
    with pytest.warns(UserWarning, match="nothing is merged"):
        trained().unmerge_adapter()


def test_merging_twice_merges_once():
    model = trained()
    expected = logits(model)
    model.merge_adapter()
    with pytest.warns(UserWarning, match="already merged"):
        model.merge_adapter()
    torch.testing.assert_close(logits(model), expected, **CLOSE)


def test_unload_gives_the_base_back():
    assert torch.equal(logits(trained().unload()), logits(tiny("llama").double().eval()))


@pytest.mark.parametrize("attribute", ["ds_id", "full_tensor"])
def test_a_sharded_weight_is_not_merged_into(attribute):
    model = trained()
    setattr(layers(model)[0].base_layer.weight, attribute, 1)
    with pytest.raises(
        ValueError, match=r"cannot merge into the weight of Linear, of which this process holds a shard"
    ):
        model.merge_adapter()
