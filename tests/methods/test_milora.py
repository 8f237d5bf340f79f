"""MiLoRA's start against a decomposition written out, and its saved adapter against the trained model."""

import json
import math
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, ShiraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from tombola.methods import Milora
from tombola.methods.milora import minor_factors, take_minor_directions


def lora(targets=("query",), **fields):
    return LoraConfig(target_modules=list(targets), **{"r": 2, "lora_alpha": 3, **fields})


def weight_of(sigma, rows, columns):
    """A float64 weight with those singular values."""
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q for n in (rows, columns))
    diagonal = torch.zeros(rows, columns, dtype=torch.float64)
    for i, value in enumerate(sigma):
        diagonal[i, i] = value
    return u @ diagonal @ v.T, u, v


class Still:
    """A trainer that moves nothing, and keeps what it was given."""

    def train(self, model, *, phase):
        self.model, self.phase = model, phase


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (7, 5), (5, 5)])
@pytest.mark.parametrize("scale", [1.0, 1.5, 0.25])
def test_factors_are_the_smallest_singular_directions(rows, columns, scale):
    weight, u, v = weight_of([9, 7, 5, 3, 2], rows, columns)
    b, a = minor_factors(weight, 2, scale)
    part = 3 * torch.outer(u[:, 3], v[:, 3]) + 2 * torch.outer(u[:, 4], v[:, 4])
    torch.testing.assert_close(scale * b @ a, part, rtol=0, atol=1e-10)
    for factor in (b.T, a):
        torch.testing.assert_close((factor @ factor.T).diagonal(), torch.tensor([3, 2]).double() / scale)
    assert torch.linalg.matrix_norm(scale * b @ a).item() == pytest.approx(math.hypot(3, 2), abs=1e-10)


def test_narrow_weights_are_decomposed_in_float32():
    weight = weight_of([9, 7, 5, 3, 2], 5, 7)[0].bfloat16()
    b, a = minor_factors(weight, 2, 1.0)
    assert b.dtype == a.dtype == torch.float32
    expected = torch.linalg.svdvals(weight.double())[-2:].square().sum().sqrt()
    torch.testing.assert_close(torch.linalg.matrix_norm(b @ a).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("rooted", [False, True])
def test_the_start_changes_nothing_and_the_base_is_the_residual(host_of, batch_of, dtype, bound, rooted):
    host, batch = host_of("llama"), batch_of("llama")
    host.net.to(dtype)
    original = {name: p.clone() for name, p in host.net.named_parameters()}
    before = host.net(**batch).logits
    model = Milora(lora(["q_proj", "down_proj"], use_rslora=rooted)).fit(host, Still())
    assert (model(**batch).logits - before).abs().max() <= bound * before.abs().max()
    scale = 3 / math.sqrt(2) if rooted else 3 / 2
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        layer, weight = model.get_base_model().get_submodule(name), original[f"{name}.weight"]
        delta = scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        assert delta.dtype == dtype
        sigma = torch.linalg.svdvals(weight)
        torch.testing.assert_close(torch.linalg.matrix_norm(delta), sigma[-2:].norm(), rtol=bound, atol=bound)
        torch.testing.assert_close(layer.base_layer.weight + delta, weight, rtol=bound, atol=bound)
        kept = torch.linalg.svdvals(layer.base_layer.weight)
        torch.testing.assert_close(kept[:-2], sigma[:-2], rtol=10 * bound, atol=10 * bound)
        assert kept[-2:].max() < 1e-3 * sigma[-1], "what went into the adapter is gone from the weight"
    assert all(torch.equal(p, original[n]) for n, p in host.net.named_parameters() if "lora" not in n and n in original)


@pytest.mark.parametrize("family", ["llama", "roberta", "vit"])
def test_the_saved_folder_is_a_plain_lora_of_twice_the_rank(host_of, trainer_of, batch_of, targets, tmp_path, family):
    method, batch = Milora(lora(targets[family], rank_pattern={"v_proj": 1})), batch_of(family)
    untrained = host_of(family).net(**batch).logits
    trainer = trainer_of(family)
    model = method.fit(host_of(family), trainer)
    method.save(model, tmp_path)
    assert trainer.phases == ["train"]
    both = {part for name in trainer.trained for part in ("lora_A", "lora_B") if part in name}
    assert both == {"lora_A", "lora_B"}, "both factors are trained"
    answers = model(**batch).logits
    assert not torch.allclose(answers, untrained, rtol=0, atol=1e-4), "it has learnt more than rounding"
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["rank_pattern"]) == (4, 6, {"v_proj": 2})
    assert (saved["peft_type"], saved["init_lora_weights"]) == ("LORA", True)
    plain = PeftModel.from_pretrained(host_of(family).net, str(tmp_path)).eval()
    assert torch.allclose(plain(**batch).logits, answers, rtol=0, atol=1e-6)
    assert torch.allclose(method.load(host_of(family), tmp_path)(**batch).logits, answers, rtol=0, atol=1e-6)
    heads = [name for name in load_file(tmp_path / "adapter_model.safetensors") if "classifier" in name]
    assert bool(heads) == (family != "llama")


def test_the_same_weights_give_the_same_start(host_of):
    first, second = (Milora(lora(["q_proj"]), seed=seed).fit(host_of("llama"), Still()) for seed in (0, 1))
    one, other = first.state_dict(), second.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lora(use_dora=True), r"a peft.LoraConfig with .*Got LoraConfig with .* use_dora=True"),
        (lora(init_lora_weights="pissa"), r"Got LoraConfig with init_lora_weights=pissa"),
        (ShiraConfig(r=1), r"Got ShiraConfig with init_lora_weights=None"),
        (lora(lora_alpha=0), r"lora_alpha must be above 0. Got 0"),
    ],
)
def test_configs_that_are_no_plain_lora_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        Milora(config)


def test_a_layer_with_fewer_directions_is_refused_before_any_weight_is_changed(host_of):
    host = host_of("llama")
    before = {name: p.clone() for name, p in host.net.named_parameters()}
    with pytest.raises(
        ValueError, match=r"r=17 is more than the 16 singular directions of the layer .*q_proj: lower r"
    ):
        Milora(lora(["q_proj"], rank_pattern={"layers.1.*q_proj": 17})).fit(host, Still())
    after = {name.replace(".base_layer", ""): p for name, p in host.net.named_parameters() if "lora_" not in name}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_layer_without_a_plain_weight_is_refused(host_of):
    with pytest.raises(ValueError, match=r"embed_tokens is of type Embedding, not torch.nn.Linear"):
        Milora(lora(["embed_tokens"])).fit(host_of("llama"), Still())


def test_more_of_the_rank_takes_more_of_the_weight():
    net = nn.Sequential(nn.Linear(6, 5)).double().requires_grad_(False)
    weight = net[0].weight.clone()
    model = get_peft_model(net, replace(lora(["0"]), r=5, lora_alpha=5))
    take_minor_directions(model)
    assert torch.allclose(model.base_model.model[0].base_layer.weight, torch.zeros(5, 6).double(), atol=1e-10)
    assert torch.allclose(model.base_model.model[0].get_delta_weight("default"), weight, atol=1e-10)
