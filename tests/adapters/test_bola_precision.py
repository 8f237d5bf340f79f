"""Scores stay float32, whatever the model around them is cast to."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.adapters.tiny_models import batch, bola, layers, shake, tiny, trainable

from tombola import BolaConfig
from tombola.adapters.bola_leaves import BolaScores, BolaValues

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CASTS = {
    "to_bf16": lambda model: model.to(torch.bfloat16),
    "to_device_and_half": lambda model: model.to("cpu", torch.float16),
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "there_and_back": lambda model: model.half().bfloat16(),
}


def types(model: torch.nn.Module, part: str) -> set[torch.dtype]:
    return {getattr(layer, part)["default"].weight.dtype for layer in layers(model)}


@pytest.mark.parametrize("upcast", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_16_bit_base_the_scores_are_float32_and_the_values_follow_peft(dtype, upcast):
    model = get_peft_model(tiny("llama").to(dtype), BolaConfig(), autocast_adapter_dtype=upcast)
    assert types(model, "bola_scores") == {torch.float32}
    assert types(model, "bola_values") == {torch.float32 if upcast else dtype}


@pytest.mark.parametrize("cast", CASTS)
def test_casting_the_model_leaves_the_scores_bit_for_bit(cast):
    model = bola(tiny("llama"))
    before = [layer.bola_scores["default"].weight.clone() for layer in layers(model)]
    CASTS[cast](model)
    assert types(model, "bola_scores") == {torch.float32}
    assert types(model, "bola_values") <= {torch.float16, torch.bfloat16}
    assert all(
        torch.equal(layer.bola_scores["default"].weight, old) for layer, old in zip(layers(model), before, strict=True)
    )


def test_a_cast_to_double_widens_the_scores_too():
    assert types(bola(tiny("llama")).double(), "bola_scores") == {torch.float64}


def test_moving_to_meta_and_emptying_work_as_on_any_module():
    scores = BolaScores(2, 3, 4, init_a=1.0, device=torch.device("cpu")).to("meta", torch.bfloat16)
    assert scores.weight.is_meta
    assert scores.weight.dtype == torch.float32
    assert not scores.to_empty(device="cpu").weight.is_meta


@pytest.mark.parametrize("assign", [True, False])
def test_a_16_bit_checkpoint_is_widened(assign):
    scores = BolaScores(2, 3, 4, init_a=1.0, device=torch.device("cpu"))
    narrow = torch.rand(2, 3, 4).bfloat16()
    scores.load_state_dict({"weight": narrow}, assign=assign)
    assert torch.equal(scores.weight, narrow.float())
    assert scores.weight.dtype == torch.float32


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_an_adapter_file_in_bfloat16_loads_with_float32_scores(low_cpu_mem_usage, tmp_path):
    bola(tiny("llama")).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({key: value.bfloat16() for key, value in load_file(file).items()}, file)
    base = tiny("llama").bfloat16()
    loaded = PeftModel.from_pretrained(
        base, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage, autocast_adapter_dtype=False
    )
    assert types(loaded, "bola_scores") == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("upcast", [True, False])
def test_a_16_bit_base_trains(dtype, upcast):
    model = get_peft_model(tiny("llama").to(dtype), BolaConfig(k=4), autocast_adapter_dtype=upcast).train()
    shake(model)
    output = model(**batch("llama"))
    assert output.logits.dtype == dtype
    output.loss.backward()
    for layer in layers(model):
        assert layer.bola_scores["default"].weight.grad.dtype == torch.float32
        assert layer.bola_values["default"].weight.grad.dtype == layer.bola_values["default"].weight.dtype
    assert all(parameter.grad.isfinite().all() for parameter in trainable(model))


@pytest.mark.parametrize("all_draw_one_cell", [False, True])
@pytest.mark.parametrize(
    ("base", "values"),
    [(torch.float32, torch.bfloat16), (torch.float64, torch.float32), (torch.bfloat16, torch.float64)],
)
def test_base_and_values_of_different_types_train(base, values, all_draw_one_cell):
    model = bola(tiny("llama").to(base)).train()
    for layer in layers(model):
        layer.bola_values["default"].to(values)
        scores = layer.bola_scores["default"].weight.data
        if all_draw_one_cell:
            scores.copy_(scores[:1].expand_as(scores).clone())
    shake(model)
    output = model(**batch("llama"))
    assert output.logits.dtype == base
    output.loss.backward()
    for layer in layers(model):
        assert layer.bola_values["default"].weight.grad.dtype == values
    assert all(parameter.grad.isfinite().all() for parameter in trainable(model))


def test_the_16_bit_output_is_the_exact_one_up_to_rounding():
    exact, model = (bola(tiny("llama").to(dtype)).eval() for dtype in (torch.float64, torch.bfloat16))
    for each in (exact, model):
        for layer in layers(each):
            layer.bola_values["default"].weight.data.fill_(0.05)
    words = batch("llama")["input_ids"]
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode:
            close = torch.testing.assert_close
            close(model(input_ids=words).logits.double(), exact(input_ids=words).logits, rtol=0.03, atol=0.03)


def test_scores_that_an_engine_has_narrowed_are_widened_for_the_draw():
    torch.manual_seed(0)
    scores = BolaScores(2, 3, 4, init_a=1.0, device=torch.device("cpu"))
    values = BolaValues(2, 5, 2, alpha=3.3, magnitude="literal", device=torch.device("cpu"))
    values.weight.data.normal_()
    x = torch.randn(7, 6)
    scores.weight.data = scores.weight.data.bfloat16()  # what DeepSpeed's bf16 engine does
    assert torch.equal(values(x, scores()), values(x, scores().float()))
    values(x, scores()).sum().backward()
    assert scores.weight.grad.dtype == torch.bfloat16
    assert scores.to("cpu").weight.dtype == torch.bfloat16
