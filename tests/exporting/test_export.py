"""Exported adapters give the trained model's answers where this package, or PEFT too, cannot be imported."""

import json
import subprocess
import sys

import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tests.exporting.conftest import TARGETS, host_of, logits, words

import tombola
from tombola.exporting import export

# `find` of every finder is asked first, so that neither an installed nor an editable package is found.
IN_ANOTHER_PROCESS = """
import sys
folder, blocked, config = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in blocked else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in blocked:
    try: __import__(name)
    except ImportError: continue
    raise SystemExit(f"{name} can be imported")
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
answers, words = {}, load_file(Path(folder) / "words")["words"]
for path in sorted(path for path in Path(folder).iterdir() if path.is_dir() and path.name != "base"):
    kind = AutoModelForCausalLM if "llama" in path.name else AutoModelForSequenceClassification
    if "peft" in blocked:
        model = kind.from_pretrained(path)
        assert len(AutoTokenizer.from_pretrained(path)("12")["input_ids"]) >= 2
    else:
        from peft import PeftModel
        model = PeftModel.from_pretrained(kind.from_pretrained(Path(folder) / "base" / path.name), path)
        assert type(model.peft_config["default"]).__name__ == config
    with torch.no_grad():
        answers[path.name] = model.eval()(input_ids=words).logits
save_file(answers, Path(folder) / "answers")
"""
LORA = {"init_lora_weights": True, "r": 2}
HALF = {"kept_rows": 0.5, "kept_cols": 0.4, "seed": 3}


def adapters():
    """Name of the run -> config and model."""
    roberta, llama = TARGETS["tiny_roberta"], TARGETS["tiny_llama"]
    return {
        "bola-roberta": (tombola.BolaConfig(target_modules=roberta, k=4), "tiny_roberta"),
        "bola-llama": (tombola.BolaConfig(target_modules=[*llama, "down_proj"], k=3), "tiny_llama"),
        "element-roberta": (tombola.SparseDeltaConfig(target_modules=roberta, density=0.01), "tiny_roberta"),
        "tiles-llama": (
            tombola.SparseDeltaConfig(target_modules=llama, count=512, structure="block", block=8, scale=0.5),
            "tiny_llama",
        ),
        "gated-llama": (
            tombola.SparseDeltaConfig(target_modules=llama, count=70, gate=True, delta_init="kaiming"),
            "tiny_llama",
        ),
        "entries-llama": (tombola.RosaConfig(target_modules=llama, r=0, count=30, sparse_scale=2.0), "tiny_llama"),
        "rosa-llama": (tombola.RosaConfig(target_modules=llama, r=2, count=30), "tiny_llama"),
        "shira-roberta": (peft.ShiraConfig(target_modules=roberta, r=2, random_seed=1), "tiny_roberta"),
        "lora-llama": (peft.LoraConfig(target_modules=llama, **LORA), "tiny_llama"),
        "masked_lora-llama": (
            tombola.MaskedLoraConfig(target_modules=[*llama, "down_proj"], r=3, lora_alpha=5.0, **HALF),
            "tiny_llama",
        ),
        "masked_lora-roberta": (
            tombola.MaskedLoraConfig(target_modules=roberta, r=2, granularity="element", **HALF),
            "tiny_roberta",
        ),
        "partitioned_lora-llama": (
            tombola.PartitionedLoraConfig(
                target_modules=llama, r=3, r_minor=2, lora_alpha=5.0, dominant=0.4, minor_scale="alpha_over_r_minor"
            ),
            "tiny_llama",
        ),
    }


LOW_RANK = ["lora-llama", "masked_lora-llama", "masked_lora-roberta", "partitioned_lora-llama"]
DENSE = [*LOW_RANK, "rosa-llama"]
SPARSE = [name for name in adapters() if name not in DENSE]


def exported(finished, name, form, out):
    folder, answers = finished(name, *adapters()[name])
    config = json.loads((folder / "config.json").read_text())
    export(folder / "adapter", form, out, config)
    return folder, answers, config


def answers_elsewhere(folder, *blocked, config=""):
    save_file({"words": words()}, folder / "words")
    arguments = [str(folder), ",".join(blocked), config]
    subprocess.run([sys.executable, "-W", "ignore", "-c", IN_ANOTHER_PROCESS, *arguments], check=True)
    return load_file(folder / "answers")


@pytest.mark.parametrize(
    ("form", "config_class", "names"), [("shira", "ShiraConfig", SPARSE), ("lora", "LoraConfig", LOW_RANK)]
)
def test_an_adapter_in_a_stock_form_loads_without_this_package(finished, form, config_class, names, tmp_path):
    expected = {}
    for name in names:
        _, expected[name], config = exported(finished, name, form, tmp_path / name)
        host_of(config).net.save_pretrained(tmp_path / "base" / name)
    answers = answers_elsewhere(tmp_path, "tombola", config=config_class)
    assert answers.keys() == expected.keys()
    for name, found in answers.items():
        torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-6)


def test_a_merged_model_is_a_plain_checkpoint_that_loads_without_peft(finished, tmp_path):
    expected = {name: exported(finished, name, "merged", tmp_path / name)[1] for name in adapters()}
    answers = answers_elsewhere(tmp_path, "tombola", "peft")
    assert answers.keys() == expected.keys()
    for name, found in answers.items():
        torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-5)
    assert (tmp_path / "lora-llama" / "generation_config.json").exists()
    saved = load_file(tmp_path / "lora-llama" / "model.safetensors")
    assert not [name for name in saved if "lora" in name or "base_layer" in name]


def test_native_is_the_saved_adapter_byte_for_byte(finished, tmp_path):
    folder, answers, config = exported(finished, "bola-roberta", "native", tmp_path / "out")
    names = {path.name for path in (folder / "adapter").iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert all((folder / "adapter" / n).read_bytes() == (tmp_path / "out" / n).read_bytes() for n in names)
    loaded = PeftModel.from_pretrained(host_of(config).net, tmp_path / "out")
    assert torch.equal(logits(loaded), answers)


def test_shiras_places_are_the_support_and_distinct_fillers_with_explicit_zeros(finished, tmp_path):
    folder, _, config = exported(finished, "bola-llama", "shira", tmp_path / "out")
    model = PeftModel.from_pretrained(host_of(config).net, folder / "adapter")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, tombola.adapters.BolaLinear)}
    assert {f"base_model.model.{path}" for path in settings["target_modules"]} == layers.keys()
    assert settings["target_modules"] == sorted(settings["target_modules"])
    needed = []
    for path, layer in layers.items():
        delta = layer.get_delta_weight("default").detach()
        rows, columns = saved[f"{path}.shira_indices"].long()
        values = saved[f"{path}.shira_weight"]
        assert saved[f"{path}.shira_indices"].dtype == torch.int32
        assert len(values) == settings["r"] * sum(delta.shape)
        assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(values)
        assert torch.equal(torch.zeros_like(delta).index_put((rows, columns), values), delta)
        needed.append(-(-int(delta.count_nonzero()) // sum(delta.shape)))
    assert settings["r"] == max(needed)


@pytest.mark.parametrize("name", ["masked_lora-llama", "masked_lora-roberta"])
def test_loras_factors_are_whole_with_zeros_where_nothing_was_kept(finished, name, tmp_path):
    folder, _, config = exported(finished, name, "lora", tmp_path / "out")
    model = PeftModel.from_pretrained(host_of(config).net, folder / "adapter")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == ((3, 5.0) if name == "masked_lora-llama" else (2, 16))
    assert settings["target_modules"] == sorted(settings["target_modules"])
    kinds = tombola.adapters.MaskedLoraLinear
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, kinds)}
    assert {f"base_model.model.{path}" for path in settings["target_modules"]} == layers.keys()
    for path, layer in layers.items():
        a, b = saved.pop(f"{path}.lora_A.weight"), saved.pop(f"{path}.lora_B.weight")
        scale = settings["lora_alpha"] / settings["r"]
        torch.testing.assert_close(scale * b @ a, layer.get_delta_weight("default"), rtol=0, atol=1e-7)
        trained = [layer.masked_lora_a["default"].weight, layer.masked_lora_b["default"].weight]
        assert [int(one.count_nonzero()) for one in (a, b)] == [one.numel() for one in trained]
    assert all("classifier" in left for left in saved), "what remains is the head"
    assert bool(saved) == ("roberta" in name)


@pytest.mark.parametrize("name", ["bola-llama", "element-roberta", "rosa-llama"])
def test_a_delta_without_factors_is_refused_as_lora_and_told_what_fits(finished, name, tmp_path):
    with pytest.raises(ValueError, match=r"'s delta is no product of two factors, .* take format=merged or format=nat"):
        exported(finished, name, "lora", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", DENSE)
def test_a_dense_delta_is_refused_and_told_what_fits(finished, name, tmp_path):
    kind = name.partition("-")[0]
    with pytest.raises(ValueError, match=rf"{kind}'s delta is dense.* format=merged or format=native, .* format=lora"):
        exported(finished, name, "shira", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_delta_too_dense_for_shira_is_refused_and_told_what_fits(finished, tmp_path):
    dense = tombola.BolaConfig(target_modules=TARGETS["tiny_llama"], k=64, in_divs=4, out_divs=4)
    folder, _ = finished("bola-dense", dense, "tiny_llama")
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"too dense for SHiRA.*has .* which takes r=.*format=merged or format=native"):
        export(folder / "adapter", "shira", tmp_path / "out", config)
