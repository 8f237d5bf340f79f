"""RoSA through the real trainer against LoRA and dense autograd, and its schedule through one that only notes."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM

from tombola.adapters import RosaConfig, rosa_layers
from tombola.methods import Adapter, Rosa, rosa
from tombola.methods.attach import attach
from tombola.models import Host
from tombola.training import AcceleratedTrainer, Settings

TARGETS = ["q_proj", "v_proj", "down_proj"]
CONFIG = RosaConfig(target_modules=TARGETS, r=2, lora_alpha=3, density=0.02, sparse_scale=0.5)


def host(dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0}
        net = LlamaForCausalLM(LlamaConfig(**shape, **heads)).to(dtype).eval().requires_grad_(False)
    return Host(net=net, processor=None, role="decoder", task_type="CAUSAL_LM", head=(), name="tiny/llama")


def rows():
    """Of one length, and one batch: neither the order of the data nor padding can matter."""
    ids = torch.randint(3, 32, (8, 10), generator=torch.Generator().manual_seed(5)).tolist()
    return [{"input_ids": one, "labels": one} for one in ids]


def trainer(folder):
    settings = Settings(epochs=4, batch_size=8, lr=1e-2, schedule="constant", checkpoint_every=1)
    return AcceleratedTrainer(settings=settings, rows=rows(), run_dir=folder, pad_token_id=0)


def largest(scores, count):
    """By sorting a list: the smaller index first among equals."""
    flat = scores.flatten().tolist()
    return sorted(sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:count])


class Death(Exception):
    """A hook that ends the work as a kill does: nothing is saved on the way out."""

    def after_step(self, model, optimizer, step):
        if step == 1:
            raise self


class Dying:
    """The real trainer, which dies in one phase."""

    def __init__(self, real, phase):
        self.real, self.phase = real, phase

    def train(self, model, *, phase, **options):
        return self.real.train(model, phase=phase, hooks=[Death()] if phase == self.phase else [], **options)

    def __getattr__(self, name):
        return getattr(self.real, name)


@dataclass
class Noting:
    """Trains by a jump, hands out given gradients, and notes what each phase began with."""

    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    begun: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    calls: list[tuple] = field(default_factory=list)

    def train(self, model, *, phase, steps=None):
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.begun[phase] = {name: p.detach().clone() for name, p in trained.items()}
        self.calls.append((phase, steps))
        for parameter in trained.values():
            parameter.data += 0.5
        return SimpleNamespace(steps=min(steps or 0, 5))

    def dense_gradients(self, model, layers, see, *, phase, step):
        self.calls.append((phase, step))
        for path, layer in layers.items():
            shape = (layer.out_features, layer.in_features)
            gradient = torch.randn(shape, generator=torch.Generator().manual_seed(len(self.calls) + len(path)))
            self.gradients.append({path: gradient.clone()})
            see(path, gradient)


def lora_by_hand(steps):
    """The weights' gradients after some steps of PEFT's LoRA in a plain loop, by dense autograd on the same rows."""
    model = attach(host(torch.float64), LoraConfig(target_modules=TARGETS, r=2, lora_alpha=3), seed=0).double()
    ids = torch.tensor([row["input_ids"] for row in rows()])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    net = model.merge_and_unload()
    chosen = [name for name, _ in net.named_parameters() if name.split(".")[-2] in TARGETS]
    weights = {name: net.get_parameter(name).detach().clone().requires_grad_() for name in chosen}
    functional_call(net, weights, kwargs={"input_ids": ids, "labels": ids}).loss.backward()
    return {name.removesuffix(".weight"): weight.grad for name, weight in weights.items()}


def test_the_mask_is_the_largest_gradients_after_lora_has_trained(monkeypatch, tmp_path):
    monkeypatch.setattr(rosa, "attach", lambda *a, **o: attach(*a, **o).double())
    model = Rosa(CONFIG, warmup_steps=3).fit(host(torch.float64), trainer(tmp_path))
    gradients = lora_by_hand(3)
    layers = rosa_layers(model.get_base_model())
    assert layers.keys() == gradients.keys()
    for path, layer in layers.items():
        gradient = gradients[path]
        expected = largest(gradient.square(), int(0.02 * gradient.numel()))
        assert layer.support("default").tolist() == expected
        values = layer.get_delta_weight("default") - 1.5 * (
            layer.rosa_b["default"].weight @ layer.rosa_a["default"].weight
        )
        assert bool((values.flatten()[expected].abs() > 1e-6).all()), "they are trained"


def test_both_parts_and_the_head_start_from_scratch(host_of):
    noting = Noting()
    config = RosaConfig(target_modules=["query", "value"], r=2, count=7)
    model = Rosa(config, seed=3).fit(host_of("roberta"), noting)
    first, second = noting.begun["warmup"], noting.begun["train"]
    assert noting.calls == [("warmup", 64), ("warmup", 5), ("train", None)], "gradients of the batch that comes next"
    values = {name for name in second if "rosa_values" in name}
    assert second.keys() - values == first.keys()
    assert any("classifier" in name for name in first)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert all(torch.equal(second[name], torch.zeros(7)) for name in values)
    assert len(values) == 4
    for found in noting.gradients:
        ((path, gradient),) = found.items()
        assert rosa_layers(model.get_base_model())[path].support("default").tolist() == largest(gradient.abs(), 7)


@pytest.mark.parametrize("score", ["mean_squares", "mean"])
def test_several_gradients_are_put_together(host_of, score):
    noting = Noting()
    config = RosaConfig(target_modules=["query", "value"], r=2, density=0.1)
    model = Rosa(config, spa_num_grads=3, grad_score=score).fit(host_of("roberta"), noting)
    assert noting.calls[1:4] == [("warmup", 5), ("warmup", 6), ("warmup", 7)]
    for path, layer in rosa_layers(model.get_base_model()).items():
        seen = torch.stack([gradient for one in noting.gradients for where, gradient in one.items() if where == path])
        assert len(seen) == 3
        put = seen.square().mean(0) if score == "mean_squares" else seen.mean(0).abs()
        assert layer.support("default").tolist() == largest(put, int(0.1 * put.numel()))


def test_without_a_sparse_part_it_is_lora(tmp_path):
    rosas = Rosa(replace(CONFIG, density=0.0), warmup_steps=2).fit(host(), trainer(tmp_path / "rosa"))
    lora = Adapter(LoraConfig(target_modules=TARGETS, r=2, lora_alpha=3)).fit(host(), trainer(tmp_path / "lora"))
    ours = {name.replace("rosa_a", "lora_A").replace("rosa_b", "lora_B"): v for name, v in rosas.state_dict().items()}
    theirs = lora.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-7)
    assert any(bool(value.any()) for name, value in theirs.items() if "lora_B" in name)


@pytest.mark.parametrize("phase", ["warmup", "train"])
def test_a_run_killed_in_either_phase_ends_as_an_uninterrupted_one(tmp_path, phase):
    method = Rosa(CONFIG, warmup_steps=3)
    method.save(method.fit(host(), trainer(tmp_path / "whole")), tmp_path / "a")
    with pytest.raises(Death):
        method.fit(host(), Dying(trainer(tmp_path / "cut"), phase))
    torch.rand(3)
    method.save(model := method.fit(host(), trainer(tmp_path / "cut")), tmp_path / "b")
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    loaded, ids = method.load(host(), tmp_path / "b"), torch.arange(3, 13).view(1, 10)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grad_score": "max"}, "grad_score must be one of mean_squares, mean. Got 'max'"),
        ({"warmup_steps": 0}, "warmup_steps must be at least 1. Got 0"),
        ({"spa_num_grads": 0}, "spa_num_grads must be at least 1"),
        ({"config": replace(CONFIG, r=0)}, "needs r of at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(Rosa(CONFIG), **changes)
