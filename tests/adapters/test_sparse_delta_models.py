"""SparseDelta through PEFT: training, several adapters, precision, merging."""

import warnings
from collections.abc import Callable

import pytest
import torch
from peft import TaskType, get_peft_model
from tests.adapters.test_bola_borrowing import (
    Int8Linear,
    hook_the_base,
    make_trainable,
    mark_partitioned,
    put_a_view,
    replace_the_method,
)
from tests.adapters.test_sparse_delta_layer import adapted
from tests.adapters.tiny_models import FAMILIES, batch, shake_sparse, sparse, tiny, trainable
from torch import Tensor, nn
from torch.nn import functional as F

from tombola import SparseDeltaConfig
from tombola.adapters import sparse_delta_leaves, sparse_layers

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
KINDS = {
    "element": {"density": 0.1},
    "gated blocks": {"density": 0.5, "structure": "block", "block": 8, "gate": True},
    "gated full": {"support": "full", "gate": True},
}
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def trained(family: str = "llama", kind: str = "element", dtype: torch.dtype = torch.float64, **settings: object):
    task = TaskType.SEQ_CLS if family == "roberta" else None
    model = sparse(tiny(family).to(dtype), task_type=task, **KINDS[kind], **settings).eval()
    shake_sparse(model)
    return model


def logits(model: nn.Module, family: str = "llama") -> Tensor:
    inputs = {key: value for key, value in batch(family).items() if key != "labels"}
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        return model(**{key: v.to(dtype) if v.is_floating_point() else v for key, v in inputs.items()}).logits


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "sparse_delta" not in name}


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kernel each forward took."""
    taken: list[str] = []

    def noting(name: str, kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: object) -> Tensor:
            taken.append(name)
            return kernel(*args)

        return run

    for name in ("sparse_additive", "sparse_borrowed"):
        kernel = getattr(sparse_delta_leaves, name)
        monkeypatch.setattr(sparse_delta_leaves, name, noting(name.removeprefix("sparse_"), kernel))
    return taken


def test_training_borrows_and_inference_adds(ways):
    layer = adapted(count=90)
    x = torch.randn(3, 36, dtype=torch.float64)
    training = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), training, **CLOSE)
    assert ways == ["borrowed", "additive"]


@pytest.mark.parametrize(
    "change",
    [mark_partitioned, make_trainable, hook_the_base, replace_the_method, put_a_view],
    ids=lambda f: f.__name__,
)
def test_a_weight_that_is_not_plain_and_alone_is_not_borrowed(ways, change):
    layer = adapted(count=90)
    x = torch.randn(3, 36, dtype=torch.float64)
    borrowed = layer(x)
    change(layer)
    torch.testing.assert_close(layer(x), borrowed, **CLOSE)
    assert ways == ["borrowed", "additive"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_layer_is_added_to_and_never_merged_into(ways, kind):
    (layer,) = sparse_layers(sparse(nn.Sequential(Int8Linear(16, 8)), target_modules=["0"], **KINDS[kind])).values()
    shake_sparse(nn.Sequential(layer))
    x = torch.randn(3, 16)
    expected = layer.base_layer(x) + F.linear(x, layer.get_delta_weight("default"))
    torch.testing.assert_close(layer(x), expected)
    layer(x).sum().backward()
    assert layer.sparse_delta_values["default"].weight.grad.abs().max() > 0
    assert set(ways) == {"additive"}
    with pytest.raises(
        ValueError, match=r"cannot merge into the weight of Int8Linear, which is quantised.*merge there"
    ):
        layer.merge()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_leaves_the_base_alone(family, kind):
    model = sparse(tiny(family), task_type=TaskType.SEQ_CLS if family == "roberta" else None, **KINDS[kind]).train()
    shake_sparse(model)
    before = {name: value for name, value in weights(model).items() if "modules_to_save" not in name}
    optimizer = torch.optim.AdamW(trainable(model), lr=0.01, weight_decay=1.0)
    for _ in range(3):
        model(**batch(family)).loss.backward()
        assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if "sparse_delta" in n)
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items() if name in before)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_merge_and_unload_gives_a_plain_model_with_the_same_output(family, kind, safe):
    model = trained(family, kind)
    expected = logits(model, family)
    plain = model.merge_and_unload(safe_merge=safe)
    assert plain.state_dict().keys() == tiny(family).state_dict().keys()
    torch.testing.assert_close(logits(plain, family), expected, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_restores_every_bit(dtype, kind):
    model = trained("llama", kind, dtype)
    layer = next(iter(sparse_layers(model).values()))
    layer.base_layer.weight.data[::3] = -0.0
    before, output = weights(model), logits(model)
    model.merge_adapter()
    assert not torch.equal(
        layer.base_layer.weight, before["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"]
    )
    model.unmerge_adapter()
    assert all(torch.equal(value.view(torch.uint8), before[n].view(torch.uint8)) for n, value in weights(model).items())
    assert torch.equal(logits(model), output)


def test_a_merge_changes_the_support_and_no_other():
    layer = adapted(count=90)
    before = layer.base_layer.weight.clone()
    layer.merge()
    assert torch.equal(layer.base_layer.weight != before, layer.get_delta_weight("default") != 0)


def test_a_safe_merge_refuses_what_is_not_finite_and_leaves_the_layer():
    layer = adapted(count=90)
    layer.sparse_delta_values["default"].weight.data[7] = float("nan")
    before = layer.base_layer.weight.clone()
    with pytest.raises(ValueError, match=r"merging the adapter 'default' would put NaN or infinity into the weights"):
        layer.merge(safe_merge=True)
    assert torch.equal(layer.base_layer.weight, before)


@pytest.mark.parametrize("training", [True, False])
def test_two_active_adapters_add_up_train_together_and_merge(training):
    model = trained(target_modules=["q_proj", "down_proj"])
    model.add_adapter("other", SparseDeltaConfig(target_modules=["q_proj"], scale=3.0, **KINDS["gated blocks"]))
    shake_sparse(model, "other", seed=11)
    model.base_model.set_adapter(["default", "other"])
    layer = next(iter(sparse_layers(model.train(training)).values()))
    x = torch.randn(5, 32, dtype=torch.float64)
    delta = layer.get_delta_weight("default") + layer.get_delta_weight("other")
    torch.testing.assert_close(layer(x), F.linear(x, layer.base_layer.weight + delta), **CLOSE)
    model(**batch("llama")).loss.backward()
    assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if "sparse_delta" in n)
    expected = logits(model)
    model.merge_adapter(["default", "other"])
    torch.testing.assert_close(logits(model), expected, **CLOSE)
    model.unmerge_adapter()
    assert torch.equal(logits(model), expected)


def test_an_adapter_is_switched_off_deleted_and_the_base_is_left():
    model, base = trained(), tiny("llama").double().eval()
    next(iter(sparse_layers(model).values())).begin_waiting("default")
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base))
    model.add_adapter("other", SparseDeltaConfig(density=0.2))
    model.set_adapter("other")
    model.delete_adapter("default")
    assert not any(".default" in name for name in model.state_dict())
    assert not any("default" in layer.names() for layer in sparse_layers(model).values())
    assert torch.equal(logits(model), logits(base))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_gradient(kind):
    def gradients(checkpointed: bool) -> list[Tensor]:
        model = trained("llama", kind).train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(**batch("llama"), use_cache=False).loss.backward()
        return [parameter.grad for parameter in trainable(model)]

    assert all(torch.equal(a, b) for a, b in zip(gradients(False), gradients(True), strict=True))


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casting_the_model_never_narrows_values_gates_or_waiting_values(cast):
    model = sparse(tiny("llama"), gate=True, target_modules=["q_proj"])
    layer = next(iter(sparse_layers(model).values()))
    shake_sparse(model)
    layer.begin_waiting("default")
    before = layer.get_delta_weight("default")
    getattr(model, cast)()
    wide = torch.float64 if cast == "double" else torch.float32
    leaves = (layer.sparse_delta_values, layer.sparse_delta_gate)
    assert {leaf["default"].weight.dtype for leaf in leaves} | {layer.waiting("default").dtype} == {wide}
    assert torch.equal(layer.get_delta_weight("default").float(), before)
    assert layer.sparse_delta_index["default"].dtype == torch.int32


@pytest.mark.parametrize("upcast", [True, False])
@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("values", ["float32", "bfloat16"])
def test_values_have_the_config_s_dtype_on_any_base(values, base, upcast):
    config = SparseDeltaConfig(density=0.1, gate=True, values_dtype=values, target_modules=["q_proj"])
    model = get_peft_model(tiny("llama").to(base), config, autocast_adapter_dtype=upcast).train()
    shake_sparse(model)
    model.to(torch.bfloat16).to(base)
    model(**batch("llama")).loss.backward()
    for layer in sparse_layers(model).values():
        weight, gate = layer.sparse_delta_values["default"].weight, layer.sparse_delta_gate["default"].weight
        assert weight.dtype == weight.grad.dtype == getattr(torch, values)
        assert gate.dtype == gate.grad.dtype == torch.float32


def test_a_gate_that_an_engine_has_narrowed_is_widened_for_the_product():
    layer = adapted(count=90, gate=True).float()
    gate = layer.sparse_delta_gate["default"].weight
    x = torch.randn(3, 36)
    gate.data = gate.data.bfloat16()  # what DeepSpeed's bf16 engine does
    expected = F.linear(x, layer.base_layer.weight + layer.get_delta_weight("default"), layer.base_layer.bias)
    torch.testing.assert_close(layer(x), expected)
    layer(x).sum().backward()
    assert gate.grad.dtype == torch.bfloat16


def test_a_shard_is_not_read_as_if_it_were_the_whole():
    layer = adapted(count=90)
    values = layer.sparse_delta_values["default"].weight
    values.data = values.data[:45]
    with pytest.raises(ValueError, match=r"is not whole on this process"):
        layer.dense_values("default")
