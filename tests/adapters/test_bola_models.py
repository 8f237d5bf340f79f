"""BoLA on the four families, with nothing said but (at most) the target modules."""

import warnings

import pytest
import torch
from peft import TaskType
from tests.adapters.tiny_models import FAMILIES, SIZES, WORDS, batch, bola, layers, shake, tiny, trainable
from torch import nn
from transformers import AutoModel, CLIPVisionConfig, CLIPVisionModel, DebertaV2Config, DistilBertConfig, Qwen2Config

from tombola.adapters.targets import DEFAULT_TARGETS

TARGETS = {
    "llama": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
    "roberta": ["query", "key"],
    "phi3": ["qkv_proj", "gate_up_proj", "down_proj"],
    "vit": ["q_proj", "k_proj"],
}
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def steps(model: nn.Module, family: str, count: int = 4, rate: float = 0.02) -> list[float]:
    optimizer = torch.optim.AdamW(trainable(model), lr=rate)
    losses = []
    for _ in range(count):
        loss = model(**batch(family)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("family", FAMILIES)
def test_target_modules_alone_start_as_the_base_learn_and_leave_the_base_alone(family):
    base = tiny(family).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    expected = base(**batch(family)).logits
    model = bola(base, target_modules=TARGETS[family]).eval()
    assert torch.equal(model(**batch(family)).logits, expected)
    model.train()
    losses = steps(model, family)
    assert losses[-1] < losses[0]
    after = {name.replace("base_layer.", ""): value for name, value in base.state_dict().items() if "bola_" not in name}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_target_modules_the_papers_layers_are_adapted(family):
    model = bola(tiny(family))
    adapted = {name.rpartition(".")[2] for name in model.base_model.targeted_module_names}
    assert adapted == set(TARGETS[family])


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(vocab_size=WORDS, num_key_value_heads=2, **SIZES),
        DebertaV2Config(vocab_size=WORDS, **SIZES),
        DistilBertConfig(vocab_size=WORDS, dim=32, hidden_dim=48, n_layers=2, n_heads=4),
    ],
)
def test_other_architectures_have_defaults_that_exist_in_them(config):
    model = bola(AutoModel.from_config(config))
    assert len(layers(model)) == 2 * len(DEFAULT_TARGETS[config.model_type])


def test_clip_s_vision_tower_has_defaults():
    model = bola(CLIPVisionModel(CLIPVisionConfig(image_size=8, patch_size=4, **SIZES)))
    assert len(layers(model)) == 2 * 2


def test_an_unknown_architecture_needs_target_modules():
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(
        ValueError, match=r"target_modules is not given, and no default is known.*'custom'.*llama.*all-linear"
    ):
        bola(net)


def test_all_linear_takes_every_projection_and_not_the_output_layer():
    model = bola(tiny("llama"), target_modules="all-linear")
    assert len(layers(model)) == 2 * 7


def test_layers_can_be_picked_and_excluded():
    one = bola(tiny("llama"), target_modules=["q_proj", "v_proj"], layers_to_transform=[1], layers_pattern="layers")
    assert one.base_model.targeted_module_names == [f"model.layers.1.self_attn.{name}" for name in ("q_proj", "v_proj")]
    other = bola(tiny("llama"), target_modules="all-linear", exclude_modules=["down_proj", "gate_proj"])
    assert len(layers(other)) == 2 * 5


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (nn.Sequential(nn.Embedding(4, 4)), r"the layer 0 is of type Embedding, which cannot be adapted: only linear"),
        (nn.Sequential(nn.Conv1d(4, 4, 1)), r"the layer 0 is of type Conv1d, which cannot be adapted"),
    ],
)
def test_layers_that_are_not_linear_are_refused_by_name(net, says):
    with pytest.raises(ValueError, match=says):
        bola(net, target_modules=["0"])


def test_an_attention_that_reads_its_projection_without_calling_it_is_refused():
    net = nn.Sequential(nn.MultiheadAttention(4, 2))
    with pytest.raises(ValueError, match=r"0\.out_proj is of type NonDynamicallyQuantizableLinear"):
        bola(net, target_modules=["out_proj"])


def test_a_classification_head_is_trained_and_the_rest_is_frozen():
    model = bola(tiny("roberta"), task_type=TaskType.SEQ_CLS)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("bola_" in name or "classifier.modules_to_save" in name for name in names)
    assert any("classifier.modules_to_save" in name for name in names)


def test_on_the_meta_device_nothing_is_drawn_and_nothing_allocated():
    with torch.device("meta"):
        base = tiny("llama")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    model = bola(base)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_text_is_generated_as_the_merged_model_generates_it():
    model = bola(tiny("llama").double(), task_type=TaskType.CAUSAL_LM).eval()
    shake(model)
    words = batch("llama")["input_ids"]
    settings = {"input_ids": words, "attention_mask": torch.ones_like(words), "max_new_tokens": 6, "do_sample": False}
    written = model.generate(**settings, pad_token_id=0)
    assert not torch.equal(written, tiny("llama").double().eval().generate(**settings, pad_token_id=0))
    assert torch.equal(written, model.merge_and_unload().generate(**settings, pad_token_id=0))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(reentrant):
    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        model = bola(tiny("llama").double(), target_modules=["q_proj", "down_proj"])
        shake(model)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model.train()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(**batch("llama"), use_cache=False).loss.backward()
        return [parameter.grad for parameter in trainable(model)]

    plain, checkpointed = gradients(False), gradients(True)
    assert any(gradient.abs().max() > 0 for gradient in plain)
    assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))


def assert_compiling_changes_nothing(model: nn.Module, **inputs: torch.Tensor) -> None:
    shake(model)
    out = model(**inputs)[0]
    out.sum().backward()
    expected = [parameter.grad.clone() for parameter in trainable(model)]
    model.zero_grad()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")(**inputs)[0]
    compiled.sum().backward()
    torch.testing.assert_close(compiled, out)
    for parameter, gradient in zip(trainable(model), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_compiling_a_layer_changes_no_output_and_no_gradient(dropout):
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh()).double()
    model = bola(net, target_modules=["0"], dropout=dropout).train(dropout == 0)
    assert_compiling_changes_nothing(model, input=torch.randn(5, 6, dtype=torch.float64))


@pytest.mark.recipe
@pytest.mark.parametrize("training", [True, False])
def test_compiling_llama_changes_no_output_and_no_gradient(training):
    model = bola(tiny("llama").double(), target_modules=["q_proj"]).train(training)
    assert_compiling_changes_nothing(model, **batch("llama"))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_autocast_trains_in_bfloat16_with_float32_gradients(dropout):
    model = bola(tiny("llama"), target_modules=["q_proj", "down_proj"], dropout=dropout).train()
    shake(model)
    exact = model(**batch("llama"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(0)
        output = model(**batch("llama"))
    output.loss.backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in trainable(model)
    )
    if not dropout:
        torch.testing.assert_close(output.logits.float(), exact.logits, atol=0.1, rtol=0.1)
        assert not torch.equal(output.logits.float(), exact.logits)
