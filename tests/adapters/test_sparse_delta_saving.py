"""Saved SparseDelta adapters: small files that give the same bits when loaded, by PEFT and by transformers."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel, TaskType
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.adapters.test_bola_saving import IN_A_FRESH_PROCESS
from tests.adapters.tiny_models import FAMILIES, batch, shake_sparse, sparse, tiny, trainable
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from tombola.adapters import sparse_layers, write_counts

KINDS = {
    "element": {"density": 0.1},
    "block": {"density": 0.5, "structure": "block", "block": 8},
    "gated full": {"support": "full", "gate": True},
    "full blocks": {"support": "full", "structure": "block", "block": 4},
    "bfloat16": {"count": 40, "values_dtype": "bfloat16"},
}
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def logits(model: nn.Module, family: str = "llama") -> Tensor:
    with torch.no_grad():
        return model(**{key: value for key, value in batch(family).items() if key != "labels"}).logits


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_gives_the_same_bits_when_loaded(family, kind, low_cpu_mem_usage, tmp_path):
    model = sparse(tiny(family), task_type=TaskType.SEQ_CLS if family == "roberta" else None, **KINDS[kind]).eval()
    shake_sparse(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny(family), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(logits(loaded, family), logits(model, family))
    saved, read = model.state_dict(), loaded.state_dict()
    assert saved.keys() == read.keys()
    assert all(torch.equal(value, read[key]) and value.dtype == read[key].dtype for key, value in saved.items())
    assert not trainable(loaded)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("structure", ["element", "block"])
def test_layers_that_ended_with_other_counts_are_loaded_by_the_counts_written(structure, low_cpu_mem_usage, tmp_path):
    tile = {"structure": structure, "block": 8}
    model = sparse(tiny("llama"), target_modules=["q_proj", "down_proj"], support="full", gate=True, **tile).eval()
    for layer, units in zip(sparse_layers(model).values(), (slice(0), [3], slice(1, 8), slice(None)), strict=True):
        index = layer.support("default")[units]
        layer.set_support("default", index, torch.zeros(len(index), *([8, 8] if structure == "block" else [])))
    shake_sparse(model)
    write_counts(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny("llama"), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage, is_trainable=True)
    saved, read = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(value, read[key]) for key, value in saved.items())
    assert next(iter(sparse_layers(loaded).values())).count("default") == 0
    loaded.train()(**batch("llama")).loss.backward()
    assert all(parameter.grad is not None for parameter in trainable(loaded))


def test_a_fresh_process_that_imports_tombola_gives_the_same_bits(tmp_path):
    base = tiny("llama")
    base.save_pretrained(tmp_path / "base")
    model = sparse(base, target_modules=["q_proj", "down_proj"], gate=True, delta_init="normal").eval()
    shake_sparse(model)
    model.save_pretrained(tmp_path / "adapter")
    save_file({"input_ids": batch("llama")["input_ids"]}, tmp_path / "words")
    paths = [str(tmp_path / name) for name in ("base", "adapter", "words", "answer")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, *paths], check=True, timeout=300)
    assert torch.equal(load_file(tmp_path / "answer")["logits"], logits(model))


@pytest.mark.parametrize(
    ("settings", "most"),
    [({"density": 0.1}, 8.5), ({"density": 0.1, "structure": "block", "block": 16}, 4.1), ({"support": "full"}, 4.1)],
)
def test_the_file_is_small(settings, most, tmp_path):
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = sparse(LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)), target_modules="all-linear", **settings)
    model.save_pretrained(tmp_path)
    values = sum(layer.count("default") for layer in sparse_layers(model).values())
    assert (tmp_path / "adapter_model.safetensors").stat().st_size <= most * values


def test_the_file_holds_values_index_and_gate_by_layer_and_nothing_else(tmp_path):
    model = sparse(tiny("llama"), target_modules=["q_proj"], count=30, gate=True)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        parts = {key: (file.get_slice(key).get_shape(), file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118
    stem = "base_model.model.model.layers.{}.self_attn.q_proj.sparse_delta_"
    assert parts == {
        stem.format(layer) + part: content
        for layer in (0, 1)
        for part, content in (("values.weight", ([30], "F32")), ("index", ([30], "I32")), ("gate.weight", ([1], "F32")))
    }


def test_equal_states_are_saved_as_equal_bytes(tmp_path):
    for name in ("one", "two"):
        model = sparse(tiny("llama"), target_modules=["v_proj", "q_proj", "down_proj"])
        shake_sparse(model)
        model.save_pretrained(tmp_path / name)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        one, two = (hashlib.sha256((tmp_path / name / file).read_bytes()).digest() for name in ("one", "two"))
        assert one == two
    assert json.loads((tmp_path / "one" / "adapter_config.json").read_text())["peft_type"] == "SPARSE_DELTA"


def test_a_further_adapter_is_loaded_beside_the_first(tmp_path):
    model = sparse(tiny("llama"), target_modules=["q_proj"]).eval()
    shake_sparse(model, seed=5)
    model.save_pretrained(tmp_path)
    other = sparse(tiny("llama"), target_modules=["down_proj"], gate=True).eval()
    other.load_adapter(str(tmp_path), adapter_name="second")
    other.set_adapter("second")
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("kind", ["element", "gated full", "bfloat16"])
def test_transformers_own_loading_and_deleting(kind, tmp_path):
    model = sparse(tiny("llama").bfloat16(), target_modules=["q_proj", "down_proj"], **KINDS[kind]).eval()
    shake_sparse(model)
    model.save_pretrained(tmp_path)
    plain = tiny("llama").bfloat16().eval()
    untouched = logits(plain)
    plain.load_adapter(str(tmp_path), adapter_name="mine")
    dtypes = {layer.sparse_delta_values["mine"].weight.dtype for layer in sparse_layers(plain).values()}
    assert dtypes == {torch.bfloat16 if kind == "bfloat16" else torch.float32}
    torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=0.02)
    plain.disable_adapters()
    assert torch.equal(logits(plain), untouched)
    plain.enable_adapters()
    plain.delete_adapter("mine")
    assert not any(layer.names() for layer in sparse_layers(plain).values())
    assert torch.equal(logits(plain), untouched)


def test_an_adapter_of_another_size_is_refused(tmp_path):
    sparse(tiny("llama"), target_modules=["q_proj"], count=30).save_pretrained(tmp_path)
    config: Path = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "count": 31}))
    with pytest.raises(RuntimeError, match=r"size mismatch.*sparse_delta"):
        PeftModel.from_pretrained(tiny("llama"), tmp_path)
