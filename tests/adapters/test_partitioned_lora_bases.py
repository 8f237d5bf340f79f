"""Partitioned LoRA on bases of every kind: 16-bit, quantised, sharded, hooked; what its backward keeps."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from tests.adapters.test_bola_borrowing import (
    Int8Linear,
    hook_the_base,
    make_trainable,
    mark_partitioned,
    put_a_view,
    replace_the_method,
)
from tests.adapters.test_partitioned_lora_models import one_layer, partitioned
from tests.adapters.tiny_models import batch, tiny, trainable
from torch import Tensor
from torch.nn import functional as F

from tombola import PartitionedLoraConfig
from tombola.adapters import partitioned_lora_layer

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casting_the_model_never_narrows_the_factors(cast):
    layer = one_layer()
    before = layer.get_delta_weight("default")
    getattr(layer, cast)()
    wide = torch.float64 if cast == "double" else torch.float32
    assert {parameter.dtype for parameter in trainable(layer)} == {wide}
    assert layer.partitioned_lora_rows["default"].dtype == torch.int64
    torch.testing.assert_close(layer.get_delta_weight("default").float(), before)


def test_a_16_bit_model_trains_in_float32():
    model = partitioned(tiny("llama").bfloat16()).train()
    assert {parameter.dtype for parameter in trainable(model)} == {torch.float32}
    model(**batch("llama")).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trainable(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch("llama")).loss.backward()


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1.0), (torch.bfloat16, 0.75)])
def test_backward_keeps_no_more_than_that_of_pefts_lora(dtype, most):
    def kept_bytes(config: PeftConfig) -> int:
        model, kept = get_peft_model(tiny("llama").to(dtype), config).train(), {}
        known = {parameter.untyped_storage().data_ptr() for parameter in [*model.parameters(), *model.buffers()]}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive, or its place would be taken by another
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model.base_model.model.model(batch("llama")["input_ids"])
        return sum(size for size, _ in kept.values())

    shared = {"r": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]}
    ours, pefts = kept_bytes(PartitionedLoraConfig(r_minor=2, **shared)), kept_bytes(LoraConfig(**shared))
    assert ours <= most * pefts


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whether each forward joined the base layer's product or was added to its output."""
    taken: list[str] = []
    kernel = partitioned_lora_layer.partitioned_lora

    def noting(*given: object) -> Tensor:
        taken.append("joined" if len(given) > 3 else "added")
        return kernel(*given)

    monkeypatch.setattr(partitioned_lora_layer, "partitioned_lora", noting)
    return taken


@pytest.mark.parametrize(
    "change",
    [mark_partitioned, make_trainable, hook_the_base, replace_the_method, put_a_view],
    ids=lambda f: f.__name__,
)
def test_a_weight_that_is_not_plain_and_alone_is_called_as_it_is(ways, change: Callable[..., None]):
    layer, x = one_layer(), torch.randn(3, 6)
    joined = layer(x)
    change(layer)
    torch.testing.assert_close(layer(x), joined)
    assert ways == ["joined", "added"]


def test_dropout_is_beside_the_base_layer_s_product_while_it_trains(ways):
    layer, x = one_layer(lora_dropout=0.5), torch.randn(3, 6)
    layer(x)
    layer.eval()(x)
    assert ways == ["added", "joined"]


def test_a_quantised_layer_is_added_to_and_never_merged_into(ways):
    layer, x = one_layer(Int8Linear(6, 8)), torch.randn(3, 6)
    expected = layer.base_layer(x) + F.linear(x, layer.get_delta_weight("default"))
    torch.testing.assert_close(layer(x), expected)
    layer(x).sum().backward()
    assert all(factor.grad.abs().max() > 0 for factor in trainable(layer))
    assert set(ways) == {"added"}
    with pytest.raises(ValueError, match=r"cannot merge into the weight of Int8Linear, which is quantised.*there"):
        layer.merge()


@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
def test_factors_are_copied_where_the_engine_takes_them_away_after_their_forward(engine):
    factor = one_layer().partitioned_lora_a["default"]
    assert factor() is factor.weight
    if engine == "zero3":
        factor.weight.ds_id = 0
    else:
        factor.__class__ = type("FSDPGroupFactor", (type(factor),), {})
    copied = factor()
    assert copied.data_ptr() != factor.weight.data_ptr()
    assert torch.equal(copied, factor.weight)
    assert copied.requires_grad


def test_a_factor_that_an_engine_has_narrowed_is_widened_for_the_product():
    layer, x = one_layer(), torch.randn(3, 6)
    weight = layer.partitioned_lora_b["default"].weight
    weight.data = weight.data.bfloat16()  # what DeepSpeed's bf16 engine does
    layer(x).sum().backward()
    assert weight.grad.dtype == torch.bfloat16


def test_a_shard_is_not_read_as_if_it_were_the_whole():
    layer = one_layer()
    weight = layer.partitioned_lora_a["default"].weight
    weight.data = weight.data.flatten()
    with pytest.raises(ValueError, match=r"is not whole on this process"):
        layer.get_delta_weight("default")
