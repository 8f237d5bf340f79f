"""Masked LoRA through its life in PEFT: trained, saved, loaded, merged, disabled, deleted, beside another, planned."""

import subprocess
import sys
import warnings

import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.adapters.test_bola_saving import IN_A_FRESH_PROCESS
from tests.adapters.tiny_models import FAMILIES, batch, tiny, trainable
from torch import Tensor, nn

from tombola import MaskedLoraConfig
from tombola.adapters import MaskedLoraLinear

TARGETS = {
    "llama": ["q_proj", "k_proj", "down_proj"],
    "roberta": ["query", "key"],
    "phi3": ["qkv_proj", "down_proj"],
    "vit": ["q_proj", "k_proj"],
}
HOW = ("row_col", "element")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def masked(base: nn.Module, family: str = "llama", **settings: object) -> PeftModel:
    torch.manual_seed(7)
    task = TaskType.SEQ_CLS if family == "roberta" else None
    settings = {"target_modules": TARGETS[family], "r": 2, "kept_rows": 0.5, "kept_cols": 0.5, **settings}
    return get_peft_model(base, MaskedLoraConfig(task_type=task, **settings))


def layers(model: nn.Module) -> dict[str, MaskedLoraLinear]:
    return {path: module for path, module in model.named_modules() if isinstance(module, MaskedLoraLinear)}


def shaken(model: PeftModel, seed: int = 3) -> PeftModel:
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainable(model):
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def logits(model: nn.Module, family: str = "llama") -> Tensor:
    with torch.no_grad():
        return model(**{key: value for key, value in batch(family).items() if key != "labels"}).logits


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_as_the_base_learns_and_leaves_the_base_alone(family, how):
    base = tiny(family).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    expected = base(**batch(family)).logits
    model = masked(base, family, granularity=how).eval()
    assert torch.equal(model(**batch(family)).logits, expected)
    optimizer = torch.optim.AdamW(trainable(model.train()), lr=0.02)
    losses = []
    for _ in range(4):
        loss = model(**batch(family)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = {name.replace("base_layer.", ""): value for name, value in base.state_dict().items()}
    frozen = [name for name in before if name in after]
    assert len(frozen) == len(before) - (4 if family == "roberta" else 0)  # its head is trained as a copy
    assert all(torch.equal(after[name], before[name]) for name in frozen)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_gives_the_same_bits_when_loaded(family, how, low_cpu_mem_usage, tmp_path):
    model = shaken(masked(tiny(family), family, granularity=how)).eval()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny(family), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(logits(loaded, family), logits(model, family))
    saved, read = model.state_dict(), loaded.state_dict()
    assert saved.keys() == read.keys()
    assert all(torch.equal(value, read[key]) and value.dtype == read[key].dtype for key, value in saved.items())
    assert not any(tensor.is_meta for tensor in read.values())
    assert not trainable(loaded)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("how", HOW)
def test_masks_are_loaded_with_the_values_though_the_config_has_their_counts(how, low_cpu_mem_usage, tmp_path):
    lines = 2 if how == "element" else 1
    masks = {"kept_rows": {"q_proj": torch.arange(32 * lines) % 3 == 0}, "kept_cols": {"q_proj": [True] * 32 * lines}}
    model = shaken(masked(tiny("llama"), target_modules=["q_proj"], granularity=how, **masks)).eval()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny("llama"), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert loaded.peft_config["default"].kept_rows == {"q_proj": 11 * lines}
    assert loaded.peft_config["default"].kept_cols == {"q_proj": 32 * lines}
    for one, other in zip(layers(model).values(), layers(loaded).values(), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one.kept("default"), other.kept("default"), strict=True))
        assert one.kept("default")[0].tolist() == list(range(0, 32 * lines, 3))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("how", HOW)
def test_a_fresh_process_that_imports_tombola_gives_the_same_bits(how, tmp_path):
    base = tiny("llama")
    base.save_pretrained(tmp_path / "base")
    model = shaken(masked(base, granularity=how)).eval()
    model.save_pretrained(tmp_path / "adapter")
    save_file({"input_ids": batch("llama")["input_ids"]}, tmp_path / "words")
    paths = [str(tmp_path / name) for name in ("base", "adapter", "words", "answer")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, *paths], check=True, timeout=300)
    assert torch.equal(load_file(tmp_path / "answer")["logits"], logits(model))


@pytest.mark.parametrize("how", HOW)
def test_the_file_holds_what_is_kept_and_its_places_and_nothing_else(how, tmp_path):
    masked(tiny("llama"), target_modules=["k_proj"], granularity=how, kept_cols=0.25).save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        found = {key: (file.get_slice(key).get_dtype(), *file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    stem = "base_model.model.model.layers.{}.self_attn.k_proj.masked_lora_"
    parts = {"a.weight": ("F32", 2, 8), "b.weight": ("F32", 8, 2), "kept_a": ("I32", 8), "kept_b": ("I32", 8)}
    if how == "element":
        parts = {"a.weight": ("F32", 16), "b.weight": ("F32", 16), "kept_a": ("I32", 16), "kept_b": ("I32", 16)}
    assert found == {stem.format(n) + part: shape for n in (0, 1) for part, shape in parts.items()}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_keeps_the_answers_and_unmerging_the_bits(dtype, how):
    model = shaken(masked(tiny("llama").to(dtype), granularity=how)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = logits(model)
    model.merge_adapter(safe_merge=True)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=tolerance)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == 6
    model.unmerge_adapter()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    merged = model.merge_and_unload()
    assert merged.state_dict().keys() == tiny("llama").state_dict().keys()
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=tolerance)


def test_disabled_and_deleted_the_base_answers():
    untouched = logits(tiny("llama").eval())
    model = shaken(masked(tiny("llama"))).eval()
    assert not torch.equal(logits(model), untouched)
    with model.disable_adapter():
        assert torch.equal(logits(model), untouched)
    model.add_adapter("second", MaskedLoraConfig(target_modules=["q_proj"], r=1))
    model.delete_adapter("default")
    assert all(layer.names() in ([], ["second"]) for layer in layers(model).values())
    assert not [name for name in model.state_dict() if "default" in name]
    assert not any("default" in layer.masked_lora_settings for layer in layers(model).values())
    assert torch.equal(logits(model), untouched)


@pytest.mark.parametrize("training", [True, False])
def test_two_adapters_add_up_train_together_and_merge(training):
    model = shaken(masked(tiny("llama").double())).train(training)
    torch.manual_seed(1)
    more = {"r": 3, "granularity": "element", "kept_rows": 0.3, "kept_cols": 0.8}
    model.add_adapter("second", MaskedLoraConfig(target_modules=["q_proj", "v_proj"], **more))
    model.set_adapter("second")
    shaken(model, seed=8)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    plain = tiny("llama").double()
    for path, layer in layers(model).items():
        delta = sum(layer.get_delta_weight(name) for name in layer.names())
        plain.get_submodule(path.removeprefix("base_model.model.")).weight.data.add_(delta)
    torch.testing.assert_close(both, logits(plain), rtol=0, atol=1e-10)
    model(**batch("llama")).loss.backward()
    assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if "masked_lora_" in n)
    model.merge_adapter(["default", "second"])
    torch.testing.assert_close(logits(model), both, rtol=0, atol=1e-10)
    model.unmerge_adapter()
    assert torch.equal(logits(model), both)


@pytest.mark.parametrize("how", HOW)
def test_gradient_checkpointing_changes_no_gradient(how):
    def gradients(checkpointed: bool) -> list[Tensor]:
        model = shaken(masked(tiny("llama"), granularity=how)).train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(**batch("llama"), use_cache=False).loss.backward()
        return [parameter.grad for parameter in trainable(model)]

    assert all(torch.equal(a, b) for a, b in zip(gradients(False), gradients(True), strict=True))


@pytest.mark.parametrize("how", HOW)
def test_on_the_meta_device_nothing_is_drawn_and_nothing_allocated(how):
    with torch.device("meta"):
        base = tiny("llama")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    config = MaskedLoraConfig(target_modules=["k_proj"], r=2, kept_rows=0.5, kept_cols=0.25, granularity=how)
    model = get_peft_model(base, config)
    assert all(tensor.is_meta for name, tensor in model.state_dict().items() if "masked_lora_" in name)
    assert torch.equal(torch.get_rng_state(), state)
    assert [parameter.numel() for parameter in trainable(model)] == [2 * 8, 2 * 8] * 2


@pytest.mark.parametrize("how", HOW)
def test_a_16_bit_model_trains_in_float32(how):
    model = masked(tiny("llama").bfloat16(), granularity=how).train()
    assert {parameter.dtype for parameter in trainable(model)} == {torch.float32}
    assert {parameter.dtype for parameter in trainable(model.bfloat16())} == {torch.float32}
    assert {layer.masked_lora_kept_a["default"].dtype for layer in layers(model).values()} == {torch.int32}
    model(**batch("llama")).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trainable(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch("llama")).loss.backward()


def test_all_linear_layers_may_be_named_at_once_and_some_left_out():
    model = masked(tiny("llama"), target_modules="all-linear", exclude_modules=["o_proj"], layers_to_transform=None)
    assert len(layers(model)) == 2 * 6
    model = masked(tiny("llama"), target_modules=["q_proj", "v_proj"], layers_to_transform=[1])
    assert [path.split(".")[-3] for path in layers(model)] == ["1", "1"]
