"""Saved adapters: read back in this process and in a fresh one, by PEFT and by transformers."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, TaskType
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.adapters.tiny_models import FAMILIES, batch, bola, layers, shake, tiny, trainable
from torch import Tensor, nn
from transformers import LlamaForCausalLM

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
IN_A_FRESH_PROCESS = """
import sys, torch, tombola
from peft import PeftModel
from transformers import LlamaForCausalLM
base, adapter, words, out = sys.argv[1:]
model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), adapter).eval()
from safetensors.torch import load_file, save_file
with torch.no_grad():
    save_file({"logits": model(**load_file(words)).logits}, out)
"""


def logits(model: nn.Module, family: str = "llama") -> Tensor:
    with torch.no_grad():
        return model(**{key: value for key, value in batch(family).items() if key != "labels"}).logits


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_gives_the_same_bits_when_loaded(family, low_cpu_mem_usage, tmp_path):
    model = bola(tiny(family), task_type=TaskType.SEQ_CLS if family == "roberta" else None).eval()
    shake(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny(family), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(logits(loaded, family), logits(model, family))
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    assert not trainable(loaded)


def test_a_fresh_process_that_imports_tombola_gives_the_same_bits(tmp_path):
    base = tiny("llama")
    base.save_pretrained(tmp_path / "base")
    model = bola(base, target_modules=["q_proj", "down_proj"]).eval()
    shake(model)
    model.save_pretrained(tmp_path / "adapter")
    save_file({"input_ids": batch("llama")["input_ids"]}, tmp_path / "words")
    paths = [str(tmp_path / name) for name in ("base", "adapter", "words", "answer")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, *paths], check=True, timeout=300)
    assert torch.equal(load_file(tmp_path / "answer")["logits"], logits(model))


def test_the_file_holds_scores_and_values_by_layer_and_nothing_else(tmp_path):
    model = bola(tiny("llama"), target_modules=["q_proj"], k=3)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    stem = "base_model.model.model.layers.{}.self_attn.q_proj."
    assert shapes == {
        stem.format(index) + part: shape
        for index in (0, 1)
        for part, shape in (("bola_scores.weight", (3, 4, 8)), ("bola_values.weight", (3, 4, 8)))
    }


def test_equal_states_are_saved_as_equal_bytes(tmp_path):
    for name in ("one", "two"):
        model = bola(tiny("llama"), target_modules=["v_proj", "q_proj", "down_proj"])
        shake(model)
        model.save_pretrained(tmp_path / name)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    configs = [(tmp_path / name / "adapter_config.json").read_bytes() for name in ("one", "two")]
    assert configs[0] == configs[1]
    assert json.loads(configs[0])["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    shake(model, seed=99)
    model.save_pretrained(tmp_path / "two")
    assert digest(tmp_path / "one") != digest(tmp_path / "two")


def test_a_further_adapter_is_loaded_beside_the_first(tmp_path):
    model = bola(tiny("llama"), target_modules=["q_proj"]).eval()
    shake(model, seed=5)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    other = bola(tiny("llama"), target_modules=["down_proj"], k=2).eval()
    other.load_adapter(str(tmp_path), adapter_name="second")
    other.set_adapter("second")
    assert torch.equal(logits(other), expected)


def test_training_goes_on_from_a_loaded_adapter(tmp_path):
    model = bola(tiny("llama"))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny("llama"), tmp_path, is_trainable=True)
    assert sum(p.numel() for p in trainable(loaded)) == sum(p.numel() for p in trainable(model))


def test_auto_classes_find_base_and_adapter(tmp_path):
    tiny("llama").save_pretrained(tmp_path / "base")
    model = bola(LlamaForCausalLM.from_pretrained(tmp_path / "base")).eval()
    shake(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_own_loading_and_deleting(dtype, tmp_path):
    model = bola(tiny("llama").to(dtype), target_modules=["q_proj", "down_proj"]).eval()
    shake(model)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    plain = tiny("llama").to(dtype).eval()
    untouched = logits(plain)
    plain.load_adapter(str(tmp_path), adapter_name="mine")
    assert {layer.bola_scores["mine"].weight.dtype for layer in layers(plain)} == {torch.float32}
    torch.testing.assert_close(logits(plain), expected, rtol=0, atol=0 if dtype == torch.float32 else 0.02)
    plain.disable_adapters()
    assert torch.equal(logits(plain), untouched)
    plain.enable_adapters()
    plain.delete_adapter("mine")
    assert not any(len(layer.bola_values) for layer in layers(plain))
    assert torch.equal(logits(plain), untouched)


def test_an_adapter_of_another_size_is_refused(tmp_path):
    model = bola(tiny("llama"), target_modules=["q_proj"], k=4)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "k": 5}))
    with pytest.raises(RuntimeError, match=r"size mismatch.*bola_scores"):
        PeftModel.from_pretrained(tiny("llama"), tmp_path)
