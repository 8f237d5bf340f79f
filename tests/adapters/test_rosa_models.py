"""RoSA through its life in PEFT: saved, loaded, merged, disabled, deleted, beside another, planned."""

import subprocess
import sys

import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.adapters.tiny_models import FAMILIES, batch, tiny, trainable
from torch import nn

from tombola import RosaConfig
from tombola.adapters import rosa_layers, write_rosa_counts

TARGETS = {
    "llama": ["q_proj", "k_proj", "down_proj"],
    "roberta": ["query", "key"],
    "phi3": ["qkv_proj", "down_proj"],
    "vit": ["q_proj", "k_proj"],
}
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
IN_A_FRESH_PROCESS = """
import sys, torch, tombola
from peft import PeftModel
from transformers import LlamaForCausalLM
from safetensors.torch import load_file, save_file
base, adapter, words, out = sys.argv[1:]
model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), adapter).eval()
with torch.no_grad():
    save_file({"logits": model(**load_file(words)).logits}, out)
"""


def rosa(base: nn.Module, family: str = "llama", **settings: object) -> PeftModel:
    torch.manual_seed(7)
    return get_peft_model(base, RosaConfig(**{"target_modules": TARGETS[family], "r": 2, "count": 9, **settings}))


def shaken(model: PeftModel, seed: int = 3) -> PeftModel:
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainable(model):
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def logits(model: nn.Module, family: str = "llama") -> torch.Tensor:
    with torch.no_grad():
        return model(**{key: value for key, value in batch(family).items() if key != "labels"}).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_as_the_base_learns_and_leaves_the_base_alone(family):
    base = tiny(family).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    expected = base(**batch(family)).logits
    model = rosa(base, family).eval()
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
    after = {name.replace("base_layer.", ""): value for name, value in base.state_dict().items() if "rosa_" not in name}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert after.keys() == before.keys()


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_gives_the_same_bits_when_loaded(family, low_cpu_mem_usage, tmp_path):
    model = rosa(tiny(family), family, task_type=TaskType.SEQ_CLS if family == "roberta" else None)
    paths = list(rosa_layers(model))
    shaken(model).get_submodule(paths[0]).set_support("default", torch.arange(2))  # another number than the config's
    shaken(model, seed=5)
    write_rosa_counts(model)
    assert set(model.peft_config["default"].count.values()) == {2, 9}
    model.eval().save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny(family), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(logits(loaded, family), logits(model, family))
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    supports = [[one.support("default").tolist() for one in rosa_layers(m).values()] for m in (model, loaded)]
    assert supports[0] == supports[1]


def test_a_fresh_process_that_imports_tombola_gives_the_same_bits(tmp_path):
    base = tiny("llama")
    base.save_pretrained(tmp_path / "base")
    model = shaken(rosa(base)).eval()
    model.save_pretrained(tmp_path / "adapter")
    save_file({"input_ids": batch("llama")["input_ids"]}, tmp_path / "words")
    paths = [str(tmp_path / name) for name in ("base", "adapter", "words", "answer")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, *paths], check=True, timeout=300)
    assert torch.equal(load_file(tmp_path / "answer")["logits"], logits(model))


def test_the_file_holds_factors_values_and_places_and_nothing_else(tmp_path):
    rosa(tiny("llama"), target_modules=["q_proj"]).save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        found = {key: (file.get_slice(key).get_dtype(), *file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    stem = "base_model.model.model.layers.{}.self_attn.q_proj.rosa_"
    parts = {"a.weight": ("F32", 2, 32), "b.weight": ("F32", 32, 2), "index": ("I32", 9), "values.weight": ("F32", 9)}
    assert found == {stem.format(n) + part: shape for n in (0, 1) for part, shape in parts.items()}


@pytest.mark.parametrize("parts", [{}, {"r": 0}, {"count": 0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_keeps_the_answers_and_unmerging_the_bits(parts, dtype):
    model = shaken(rosa(tiny("llama").to(dtype), **parts)).eval()
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
    assert not [name for name, _ in merged.named_parameters() if "rosa_" in name or "base_layer" in name]
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=tolerance)


def test_disabled_and_deleted_the_base_answers():
    untouched = logits(tiny("llama").eval())
    model = shaken(rosa(tiny("llama"))).eval()
    assert not torch.equal(logits(model), untouched)
    with model.disable_adapter():
        assert torch.equal(logits(model), untouched)
    model.add_adapter("second", RosaConfig(target_modules=["q_proj"], r=1, count=3))
    model.delete_adapter("default")
    assert all(layer.names() in ([], ["second"]) for layer in rosa_layers(model).values())
    assert not [name for name in model.state_dict() if "default" in name]
    assert torch.equal(logits(model), untouched)


def test_two_adapters_add_up():
    model = shaken(rosa(tiny("llama"))).eval()
    first = logits(model)
    torch.manual_seed(1)
    model.add_adapter("second", RosaConfig(target_modules=["q_proj", "v_proj"], r=0, density=0.1))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    shaken(model, seed=8)
    second = logits(model)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    layers = rosa_layers(model)
    deltas = {path: sum(one.get_delta_weight(name) for name in one.names()) for path, one in layers.items()}
    plain = tiny("llama").eval()
    for path, delta in deltas.items():
        plain.get_submodule(path.removeprefix("base_model.model.")).weight.data.add_(delta)
    torch.testing.assert_close(both, logits(plain), rtol=0, atol=1e-5)
    assert not torch.allclose(both, second, atol=1e-4)
    assert not torch.allclose(both, first, atol=1e-4)


def test_on_the_meta_device_nothing_is_drawn_and_nothing_allocated():
    with torch.device("meta"):
        base = tiny("llama")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    model = get_peft_model(base, RosaConfig(target_modules=TARGETS["llama"], density=0.1))
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point())
    assert torch.equal(torch.get_rng_state(), state)
    counted = {name: p.numel() for name, p in model.named_parameters() if "rosa_values" in name and "q_proj" in name}
    assert set(counted.values()) == {102}


def test_a_16_bit_model_trains_in_float32():
    model = rosa(tiny("llama").bfloat16()).train()
    assert {parameter.dtype for parameter in trainable(model)} == {torch.float32}
    assert {parameter.dtype for parameter in trainable(model.bfloat16())} == {torch.float32}
    model(**batch("llama")).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trainable(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch("llama")).loss.backward()
