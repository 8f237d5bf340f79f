"""PiLoRA through the real trainer: its first stage against LoRA in a plain loop, its second against a fresh adapter."""

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig
from tests.methods import sparse_runs as encoder
from tests.methods.search_runs import TARGETS, Death, host, trainer

from tombola import PartitionedLoraConfig
from tombola.adapters import partitioned_lora_layers
from tombola.methods import Pilora, pilora
from tombola.methods.attach import attach, detach
from tombola.models import Host

CONFIG = PartitionedLoraConfig(target_modules=TARGETS, r=4, r_minor=1, lora_alpha=6)
EVERY, STEPS, RULES = 2, 8, ("majority", "mean", "cumulative", "top_frac", "random")


class Watched:
    """The real trainer; it keeps what phases began and ended with, may die in one, and may call another hook first."""

    def __init__(self, real, dies_in=None, hook=None):
        self.real, self.dies_in, self.hook = real, dies_in, hook
        self.begun, self.ended, self.steps, self.notes = {}, {}, {}, []

    def __getattr__(self, name):
        return getattr(self.real, name)

    def train(self, model, *, phase, hooks=(), **options):
        self.begun[phase] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        first = [self.hook] if self.hook else []
        dying = [Death(self.dies_in[1])] if self.dies_in and self.dies_in[0] == phase else []
        history = self.real.train(model, phase=phase, hooks=[*first, *hooks, *dying], **options)
        self.ended[phase] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.steps[phase] = history.steps
        return history

    def note(self, phase, numbers):
        self.notes.append((phase, numbers))
        self.real.note(phase, numbers)


def method(**options):
    return Pilora(**{"config": CONFIG, "seed": 3, "check_every": EVERY, "stage1_epochs": 2.0, **options})


def fit(folder, dtype=torch.float32, watched=None, **options):
    watched = watched or Watched(trainer(folder))
    return method(**options).fit(host(dtype), watched), watched


def adapter_state(model):
    return {name: value.clone() for name, value in model.state_dict().items() if "partitioned_lora" in name}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def checked_by_hand(targets, steps):
    """Hits and sums of every layer after some steps of PEFT's LoRA in a plain loop, with dense matrices."""
    config = LoraConfig(target_modules=targets, r=4, lora_alpha=6)
    model = attach(encoder.host(torch.float64), config, seed=3).double().train()
    layers = {name: module for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    hits = {path: torch.zeros(layer.out_features, dtype=torch.int64) for path, layer in layers.items()}
    sums = {path: torch.zeros(layer.out_features, dtype=torch.float64) for path, layer in layers.items()}
    ids, labels = encoder.batch()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(input_ids=ids).logits, labels).backward()
        for path, layer in layers.items():
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            score = (b @ a.grad + b.grad @ a).abs().sum(1).detach()
            hits[path] += score > score.mean()
            sums[path] += score
        optimizer.step()
    return hits, sums


def test_the_dominant_rows_are_those_that_matter_while_lora_trains(tmp_path, monkeypatch):
    """In float64, on an encoder, which computes in it throughout; all rows are one batch, and every step a check."""
    monkeypatch.setattr(pilora, "attach", lambda *given, **named: attach(*given, **named).double())
    watched, config = Watched(encoder.trainer(tmp_path)), replace(CONFIG, target_modules=encoder.TARGETS)
    one = method(config=config, check_every=1, stage1_epochs=encoder.STEPS - 1)
    model = one.fit(encoder.host(torch.float64), watched)
    hits, sums = checked_by_hand(encoder.TARGETS, encoder.STEPS - 1)
    ended, layers = watched.ended["importance"], partitioned_lora_layers(model.get_base_model())
    assert hits.keys() == layers.keys()
    for path, layer in layers.items():
        stem = f"base_model.model.{path}.partitioned_lora_importance."
        assert torch.equal(ended[f"{stem}hits"], hits[path])
        torch.testing.assert_close(ended[f"{stem}sums"], sums[path], rtol=0, atol=1e-10)
        assert ended[f"{stem}checks"].tolist() == [encoder.STEPS - 1]
        majority = (hits[path] > (encoder.STEPS - 1) / 2).nonzero().flatten()
        assert 0 < len(majority) < layer.out_features
        assert torch.equal(layer.dominant("default"), majority)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_makes_some_rows_dominant_and_not_all(tmp_path, rule):
    model, _ = fit(tmp_path, mask_rule=rule)
    for layer in partitioned_lora_layers(model).values():
        assert 0 < len(layer.dominant("default")) < layer.out_features
        if rule in ("top_frac", "random"):
            assert len(layer.dominant("default")) == layer.out_features // 2
    if rule == "random":
        drawn = attach(host(), CONFIG, seed=3)
        found = [
            [one.dominant("default").tolist() for one in partitioned_lora_layers(m).values()] for m in (model, drawn)
        ]
        assert found[0] == found[1]


def test_the_second_stage_starts_from_scratch_on_untouched_weights(tmp_path):
    model, watched = fit(tmp_path)
    begun, base = watched.begun["train"], host().net.state_dict()
    frozen = {name.replace("base_model.model.", "").replace(".base_layer", ""): v for name, v in begun.items()}
    assert all(torch.equal(frozen[name], value) for name, value in base.items())
    own = {name: value for name, value in begun.items() if "partitioned_lora" in name}
    assert frozen.keys() - {name.replace("base_model.model.", "") for name in own} == base.keys(), "nothing of LoRA"
    assert all(not value.any() for name, value in own.items() if name.endswith("b.default.weight"))
    masks = {p: one.dominant("default") for p, one in partitioned_lora_layers(model.get_base_model()).items()}
    shares = {p: torch.zeros(len(base[f"{p}.weight"])).index_fill(0, m, 1).bool() for p, m in masks.items()}
    fresh = attach(host(), replace(CONFIG, dominant=shares), seed=3)
    assert same(adapter_state(fresh), own)
    assert not same(adapter_state(model), own), "it was trained"
    assert watched.steps == {"importance": STEPS, "train": 12}


@pytest.mark.parametrize("accumulation", [8, 20, 4096])
def test_micro_batches_change_no_hit(tmp_path, accumulation):
    expected = fit(tmp_path / "whole")[1].ended["importance"]
    watched = Watched(trainer(tmp_path / "cut", token_budget=accumulation))
    found = fit(tmp_path, watched=watched)[1].ended["importance"]
    hits = [name for name in expected if name.endswith("hits")]
    assert len(hits) == 6
    assert all(torch.equal(found[name], expected[name]) for name in hits)


class Rescaled:
    """A hook that multiplies every gradient, as a loss scale or clipping does."""

    def before_step(self, model, optimizer, step):
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= 2.0**-7


def test_clipping_comes_after_and_a_loss_scale_changes_no_row(tmp_path):
    plain = fit(tmp_path / "plain", watched=Watched(trainer(tmp_path / "plain", eps=1e-30)))[1].ended["importance"]
    watched = Watched(trainer(tmp_path / "scaled", eps=1e-30), hook=Rescaled())
    scaled = fit(tmp_path / "scaled", watched=watched)[1].ended["importance"]
    for name in plain:
        if name.endswith("hits"):
            assert torch.equal(plain[name], scaled[name])
        if name.endswith("sums"):
            torch.testing.assert_close(scaled[name], plain[name] / 128, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "killed", [("importance", 1), ("importance", 3), ("importance", 7), ("train", 0), ("train", 5)]
)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, killed):
    whole = adapter_state(fit(tmp_path / "whole")[0])
    dying = Watched(trainer(tmp_path / "cut", checkpoint_every=1), dies_in=killed)
    with pytest.raises(Death):
        fit(tmp_path, watched=dying)
    torch.rand(3)
    model, watched = fit(tmp_path, watched=Watched(trainer(tmp_path / "cut", checkpoint_every=1)))
    assert same(adapter_state(model), whole)
    assert all(f"partitioned_lora_importance.{k}" in str(watched.ended["importance"].keys()) for k in ("hits", "sums"))


def test_the_record_and_the_log_have_the_dominant_shares(tmp_path):
    model, watched = fit(tmp_path)
    method().save(model, tmp_path / "adapter")
    ticket = json.loads((tmp_path / "adapter" / "ticket.json").read_text())
    layers = partitioned_lora_layers(model.get_base_model())
    shares = {path: len(layer.dominant("default")) / layer.out_features for path, layer in layers.items()}
    assert ticket["dominant_shares"] == shares
    assert ticket["checks"] == STEPS // EVERY
    total = sum(len(layer.dominant("default")) for layer in layers.values())
    assert ticket["dominant_share"] == total / sum(layer.out_features for layer in layers.values())
    ((phase, numbers),) = watched.notes
    assert phase == "importance"
    assert numbers["dominant_share"] == ticket["dominant_share"]
    assert {path: numbers[f"dominant_share/{path}"] for path in shares} == shares
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["dominant"] == {path: len(layer.dominant("default")) for path, layer in layers.items()}
    loaded = method().load(host(), tmp_path / "adapter")
    assert same(adapter_state(loaded), adapter_state(model))


def test_the_first_stage_may_be_a_part_of_the_epochs(tmp_path):
    assert fit(tmp_path / "some", count_stage1_epoch=True)[1].steps == {"importance": 8, "train": 4}
    with pytest.raises(ValueError, match="no step for the second stage: the first takes 12 of 12"):
        fit(tmp_path / "none", count_stage1_epoch=True, stage1_epochs=3.0)
    assert not (tmp_path / "none" / "phases").exists()


def test_a_new_head_is_back_at_its_start(host_of):
    one = host_of("roberta")
    net, start = one.net, {name: value.clone() for name, value in one.net.state_dict().items()}
    classifier = net.classifier
    model = attach(
        Host(net, None, one.role, one.task_type, one.head, one.name), LoraConfig(target_modules=["query"]), seed=0
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 1.0
    detach(model)
    assert net.classifier is classifier
    assert same(net.state_dict(), start)
    assert not any("lora" in name for name, _ in net.named_modules())
    assert not hasattr(net, "peft_config")


def test_a_first_stage_without_a_check_is_said():
    importance = pilora.Importance(attach(host(), method().plain_lora(), seed=0), 1)
    with pytest.raises(ValueError, match="saw no gradient in its first stage: lower check_every"):
        importance.dominant("majority", theta=0.7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_rule": "most"}, "mask_rule must be one of majority, mean, cumulative, top_frac, random. Got 'most'"),
        ({"theta": 0.0}, "theta is a share above 0 and at most 1. Got 0.0"),
        ({"check_every": 0}, "check_every must be at least 1. Got 0"),
        ({"stage1_epochs": 0.0}, "stage1_epochs must be above 0. Got 0.0"),
        ({"config": PartitionedLoraConfig()}, "name them in config.target_modules"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(method(), **changes)
