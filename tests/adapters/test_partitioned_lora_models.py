"""Partitioned LoRA through its life in PEFT: saved, loaded, merged, disabled, deleted, beside another, planned."""

import json
import subprocess
import sys

import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.adapters.test_bola_saving import IN_A_FRESH_PROCESS
from tests.adapters.tiny_models import FAMILIES, batch, tiny, trainable
from torch import Tensor, nn

from tombola import PartitionedLoraConfig
from tombola.adapters import PartitionedLoraLinear, partitioned_lora_layers

TARGETS = {
    "llama": ["q_proj", "k_proj", "down_proj"],
    "roberta": ["query", "key"],
    "phi3": ["qkv_proj", "down_proj"],
    "vit": ["q_proj", "k_proj"],
}
HALF = {"q_proj": [True, False] * 16, "k_proj": 0.25, "down_proj": 5}  # a mask, a share and a count
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def partitioned(base: nn.Module, family: str = "llama", **settings: object) -> PeftModel:
    torch.manual_seed(7)
    defaults = {"target_modules": TARGETS[family], "r": 4, "r_minor": 2, "lora_alpha": 6}
    return get_peft_model(base, PartitionedLoraConfig(**{**defaults, **settings}))


def shaken(model: PeftModel, seed: int = 3) -> PeftModel:
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainable(model):
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def logits(model: nn.Module, family: str = "llama") -> Tensor:
    with torch.no_grad():
        return model(**{key: value for key, value in batch(family).items() if key != "labels"}).logits


def one_layer(base: nn.Module | None = None, **settings: object) -> PartitionedLoraLinear:
    torch.manual_seed(0)
    model = partitioned(nn.Sequential(base or nn.Linear(6, 8)), target_modules=["0"], **settings).train()
    (layer,) = partitioned_lora_layers(shaken(model)).values()
    return layer


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_as_the_base_learns_and_leaves_the_base_alone(family):
    base = tiny(family).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    expected = base(**batch(family)).logits
    model = partitioned(base, family).eval()
    assert torch.equal(model(**batch(family)).logits, expected)
    optimizer = torch.optim.AdamW(trainable(model.train()), lr=0.02)
    losses = []
    for _ in range(4):
        loss = model(**batch(family)).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in trainable(model))
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = {name.replace("base_layer.", ""): v for name, v in base.state_dict().items() if "partitioned_" not in name}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert after.keys() == before.keys()


@pytest.mark.parametrize("r_minor", [0, 3])
def test_trained_numbers_are_those_of_the_formula(r_minor):
    model = partitioned(tiny("llama"), r=5, r_minor=r_minor, dominant=HALF)
    counts = {"q_proj": (32, 32, 16), "k_proj": (16, 32, 4), "down_proj": (32, 48, 5)}
    for path, layer in partitioned_lora_layers(model).items():
        rows, columns, dominant = counts[path.rpartition(".")[2]]
        trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
        assert trained == 5 * columns + r_minor * columns + dominant * 5 + (rows - dominant) * r_minor


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("settings", [{"dominant": 0.4}, {"r_minor": 0}, {"dominant": 1.0}])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_gives_the_same_bits_when_loaded(family, settings, low_cpu_mem_usage, tmp_path):
    task = TaskType.SEQ_CLS if family == "roberta" else None
    model = shaken(partitioned(tiny(family), family, task_type=task, **settings)).eval()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny(family), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(logits(loaded, family), logits(model, family))
    saved, read = model.state_dict(), loaded.state_dict()
    assert saved.keys() == read.keys()
    assert all(torch.equal(value, read[key]) and value.dtype == read[key].dtype for key, value in saved.items())
    assert not trainable(loaded)


def test_a_mask_is_saved_as_its_count_and_its_rows_beside_the_factors(tmp_path):
    partitioned(tiny("llama"), dominant=HALF).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["dominant"] == {"q_proj": 16, "k_proj": 0.25, "down_proj": 5}
    assert config["peft_type"] == "PARTITIONED_LORA"
    loaded = PeftModel.from_pretrained(tiny("llama"), tmp_path)
    for path, layer in partitioned_lora_layers(loaded).items():
        if path.endswith("q_proj"):
            assert layer.dominant("default").tolist() == list(range(0, 32, 2))


def test_a_fresh_process_that_imports_tombola_gives_the_same_bits(tmp_path):
    base = tiny("llama")
    base.save_pretrained(tmp_path / "base")
    model = shaken(partitioned(base, dominant=HALF)).eval()
    model.save_pretrained(tmp_path / "adapter")
    save_file({"input_ids": batch("llama")["input_ids"]}, tmp_path / "words")
    paths = [str(tmp_path / name) for name in ("base", "adapter", "words", "answer")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, *paths], check=True, timeout=300)
    assert torch.equal(load_file(tmp_path / "answer")["logits"], logits(model))


def test_the_file_holds_factors_and_rows_and_nothing_else(tmp_path):
    partitioned(tiny("llama"), target_modules=["q_proj"], dominant=0.25).save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        found = {key: (file.get_slice(key).get_dtype(), *file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    stem = "base_model.model.model.layers.{}.self_attn.q_proj.partitioned_lora_"
    parts = {
        "a.weight": ("F32", 4, 32),
        "b.weight": ("F32", 8, 4),
        "minor_a.weight": ("F32", 2, 32),
        "minor_b.weight": ("F32", 24, 2),
        "rows": ("I64", 8),
        "minor_rows": ("I64", 24),
    }
    assert found == {stem.format(n) + part: shape for n in (0, 1) for part, shape in parts.items()}


def test_equal_states_are_saved_as_equal_bytes(tmp_path):
    for name in ("one", "two"):
        shaken(partitioned(tiny("llama"), dominant=HALF)).save_pretrained(tmp_path / name)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("settings", [{}, {"r_minor": 0}, {"dominant": 1.0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_keeps_the_answers_and_unmerging_the_bits(settings, dtype):
    model = shaken(partitioned(tiny("llama").to(dtype), **settings)).eval()
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
    assert not [name for name, _ in merged.named_parameters() if "partitioned_" in name or "base_layer" in name]
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=tolerance)


def test_a_merge_without_a_minor_rank_changes_the_dominant_rows_and_no_other():
    layer = one_layer(r_minor=0, dominant=0.5)
    before = layer.base_layer.weight.clone()
    layer.merge()
    changed = (layer.base_layer.weight != before).any(1).nonzero().flatten()
    assert torch.equal(changed, layer.dominant("default"))
    assert len(changed) == 4


def test_disabled_and_deleted_the_base_answers():
    untouched = logits(tiny("llama").eval())
    model = shaken(partitioned(tiny("llama"))).eval()
    assert not torch.equal(logits(model), untouched)
    with model.disable_adapter():
        assert torch.equal(logits(model), untouched)
    model.add_adapter("second", PartitionedLoraConfig(target_modules=["q_proj"], r=1))
    model.delete_adapter("default")
    assert all(layer.names() in ([], ["second"]) for layer in partitioned_lora_layers(model).values())
    assert not [name for name in model.state_dict() if "default" in name]
    assert torch.equal(logits(model), untouched)


def test_two_adapters_add_up():
    model = shaken(partitioned(tiny("llama"))).eval()
    first = logits(model)
    torch.manual_seed(1)
    model.add_adapter("second", PartitionedLoraConfig(target_modules=["q_proj", "v_proj"], r=2, r_minor=0))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    shaken(model, seed=8)
    second = logits(model)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    layers = partitioned_lora_layers(model)
    deltas = {path: sum(one.get_delta_weight(name) for name in one.names()) for path, one in layers.items()}
    plain = tiny("llama").eval()
    for path, delta in deltas.items():
        plain.get_submodule(path.removeprefix("base_model.model.")).weight.data.add_(delta)
    torch.testing.assert_close(both, logits(plain), rtol=0, atol=1e-5)
    assert not torch.allclose(both, second, atol=1e-4)
    assert not torch.allclose(both, first, atol=1e-4)


def test_a_further_adapter_is_loaded_beside_the_first(tmp_path):
    model = shaken(partitioned(tiny("llama"), dominant=HALF)).eval()
    model.save_pretrained(tmp_path)
    other = shaken(partitioned(tiny("llama"), r=2), seed=9).eval()
    other.load_adapter(str(tmp_path), adapter_name="second")
    other.set_adapter("second")
    assert torch.equal(logits(other), logits(model))


def test_transformers_own_loading_and_deleting(tmp_path):
    model = shaken(partitioned(tiny("llama"), dominant=HALF)).eval()
    model.save_pretrained(tmp_path)
    plain = tiny("llama").eval()
    untouched = logits(plain)
    plain.load_adapter(str(tmp_path), adapter_name="mine")
    assert torch.equal(logits(plain), logits(model))
    plain.delete_adapter("mine")
    assert torch.equal(logits(plain), untouched)


def test_on_the_meta_device_nothing_is_drawn_and_nothing_allocated():
    with torch.device("meta"):
        base = tiny("llama")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    model = get_peft_model(base, PartitionedLoraConfig(target_modules=TARGETS["llama"]))
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point())
    assert all(layer.dominant("default").is_meta for layer in partitioned_lora_layers(model).values())
    assert torch.equal(torch.get_rng_state(), state)
