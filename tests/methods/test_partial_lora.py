"""Partial-LoRA and Targeted-LoRA through the real trainer, and their search by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from tests.methods.sparse_runs import Death, batch, double, host, trainer
from torch import nn
from torch.func import functional_call

import tombola
from tombola.adapters import MaskedLoraLinear
from tombola.methods import Adapter, PartialLora, adapter, partial_lora
from tombola.methods.partial_search import Search, magnitudes, snip, target_layers
from tombola.tickets import Lines
from tombola.training import AcceleratedTrainer

TARGETS = ["query", "intermediate.dense"]
R = 3


def method(**options: Any) -> PartialLora:
    of_config = {name: options.pop(name) for name in ("granularity", "kept_rows", "target_modules") if name in options}
    config = tombola.MaskedLoraConfig(**{"target_modules": TARGETS, "r": R, "lora_alpha": 6, **of_config})
    return PartialLora(config, **{"head_steps": 2, "imp_steps": 2, **options})


def headed(dtype: torch.dtype = torch.float32) -> Any:
    return dataclasses.replace(host(dtype), head=("classifier",), task_type="SEQ_CLS")


def masked_layers(model: nn.Module) -> dict[str, MaskedLoraLinear]:
    found = {path: module for path, module in model.named_modules() if isinstance(module, MaskedLoraLinear)}
    return {path.removeprefix("base_model.model."): module for path, module in found.items()}


def ticket(model: nn.Module, folder: Path, recipe: PartialLora | None = None) -> dict[str, Any]:
    (recipe or method()).save(model, folder)
    return json.loads((folder / "ticket.json").read_text())


class Dying:
    """The real trainer, killed at a step of a phase."""

    def __init__(self, trainer: AcceleratedTrainer, phase: str = "", step: int = 0) -> None:
        self.trainer, self.phase, self.step = trainer, phase, step

    def train(self, model: nn.Module, *, phase: str, hooks: Any = (), **options: Any) -> Any:
        dying = [Death(self.step)] if phase == self.phase else []
        return self.trainer.train(model, phase=phase, hooks=[*hooks, *dying], **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)


class Judge:
    """A trainer whose accuracy is the smallest share of lines that are not zero; it sees that one layer is masked."""

    def __init__(self, layers: dict[str, nn.Linear], dim: int) -> None:
        self.whole = {path: layer.weight.detach().clone() for path, layer in layers.items()}
        self.layers, self.dim = layers, dim

    def accuracy(self, net: nn.Module) -> float:
        changed = [path for path, layer in self.layers.items() if not torch.equal(layer.weight, self.whole[path])]
        assert len(changed) <= 1
        assert not any(layer.weight.isnan().any() for layer in self.layers.values())
        return min(float(layer.weight.any(1 - self.dim).double().mean()) for layer in self.layers.values())

    progress = AcceleratedTrainer.progress
    console = None
    ranks = type("One", (), {"first": True})


def judged(lines: str, tau: float, dim: int = 0) -> tuple[dict[str, Any], Search, dict[str, nn.Linear]]:
    layers = {"a": nn.Linear(20, 10), "b": nn.Linear(10, 20)}
    judge = Judge(layers, dim)
    search = Search(nn.ModuleDict(layers), layers, judge, lines, tau, 0.1)
    importance = {path: Lines(torch.rand(layer.out_features), torch.rand(layer.in_features))
                  for path, layer in layers.items()}  # fmt: skip
    found = search.run(importance.__getitem__)
    assert all(torch.equal(layer.weight, judge.whole[path]) for path, layer in layers.items())
    return found, search, layers


@pytest.mark.parametrize(
    ("lines", "tau", "dim", "share", "rows", "columns"),
    [
        ("rows", 0.5, 0, 0.5, 5, 20), ("columns", 0.5, 1, 0.5, 10, 10), ("both", 0.5, 0, 0.5, 5, 10),
        ("both", 0.0, 0, 1.0, 1, 1), ("both", 1.0, 0, 0.0, 10, 20), ("rows", 0.75, 0, 0.2, 8, 20),
    ],
)  # fmt: skip
def test_the_search_by_hand(lines, tau, dim, share, rows, columns):
    """Of 10 rows and 20 columns; tau=0 takes all out, and keeps one line each for the adapter."""
    found, search, layers = judged(lines, tau, dim)
    assert float(found["share/a"]) == pytest.approx(share)
    assert (int(found["rows/a"].sum()), int(found["columns/a"].sum())) == (rows, columns)
    assert float(found["accuracy"]) == 1.0
    assert int(found["evaluations"]) == search.evaluations <= 1 + 4 * len(layers)


def test_a_model_goes_on_without_a_layers_whole_weight():
    net = host(torch.float64).net
    with torch.no_grad():
        net.get_submodule("roberta.encoder.layer.0.attention.self.query").weight.zero_()
        logits = net(input_ids=batch()[0]).logits
    assert logits.abs().max() > 1e-3
    assert logits.isfinite().all()


@pytest.mark.parametrize("tau", [0.6, 0.9])
def test_the_share_that_is_found_passes_and_the_next_does_not(tmp_path, tau):
    """On a real model, with leverage scores and accuracy written apart."""
    recipe, frozen = method(tau=tau, delta=0.1, selection="targeted"), headed(torch.float64)
    model = recipe.fit(frozen, trainer(tmp_path / "run"))
    told = ticket(model, tmp_path / "saved")
    ids, labels = batch()
    net = host(torch.float64).net
    fitted = load_file(tmp_path / "run" / "phases" / "head" / "values.safetensors")
    net.load_state_dict(fitted, strict=False)

    def accuracy() -> float:
        with torch.no_grad():
            return float((net(input_ids=ids).logits.argmax(-1) == labels).double().mean())

    def without(weight: torch.Tensor, share: float) -> torch.Tensor:
        masked = weight.clone()
        masked[ranked(weight)[: int(share * weight.shape[0] + 1e-9)]] = 0
        masked[:, ranked(weight.T)[: int(share * weight.shape[1] + 1e-9)]] = 0
        return masked

    assert told["accuracy"] == accuracy()
    for path, density in told["densities"].items():
        weight = net.get_submodule(path).weight
        whole = weight.detach().clone()
        for share, passes in ((1 - density, True), (1.1 - density, False)):
            if share <= 1 + 1e-9:
                weight.data.copy_(without(whole, share))
                assert (accuracy() >= tau * told["accuracy"]) == passes
        weight.data.copy_(whole)
        rows, columns = masked_layers(model)[path].kept("default")
        assert rows.tolist() == sorted(
            ranked(whole)[int((1 - density) * whole.shape[0] + 1e-9) :] or ranked(whole)[-1:]
        )
        assert set(columns.tolist()) == set(ranked(whole.T)[-len(columns) :])


def ranked(weight: torch.Tensor, energy: float = 0.9) -> list[int]:
    """Row numbers by leverage, the smallest first, from the eigenvectors of W W^T."""
    values, vectors = torch.linalg.eigh(weight.detach() @ weight.detach().T)
    values, vectors = values.flip(0), vectors.flip(1)
    k = next(k for k in range(1, 99) if values[:k].sum() >= energy * values.sum())
    scores = vectors[:, :k].square().sum(1).tolist()
    return sorted(range(len(scores)), key=lambda i: scores[i])


@pytest.mark.parametrize("importance", ["svd", "snip", "imp"])
def test_the_host_is_untouched_and_the_densities_are_the_same_twice(tmp_path, importance):
    before = headed().net.state_dict()
    found = []
    for number, selection in enumerate(("random", "random", "targeted")):
        recipe = method(importance=importance, selection=selection, tau=0.7)
        model = recipe.fit(headed(), trainer(tmp_path / str(number)))
        after = {
            name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".original_module.", "."): value
            for name, value in model.state_dict().items()
        }
        assert all(torch.equal(after[name], value) for name, value in before.items())
        counts = {path: tuple(map(len, layer.kept("default"))) for path, layer in masked_layers(model).items()}
        found.append((ticket(model, tmp_path / f"saved-{number}"), counts))
    assert found[0] == found[1] == found[2], "and Partial-LoRA's counts are Targeted-LoRA's"
    assert set(found[0][0]["densities"]) == set(target_layers(headed(), method().config))


def test_what_is_not_kept_stays_zero_under_weight_decay(tmp_path):
    model = method(selection="targeted", tau=0.7).fit(host(), trainer(tmp_path, weight_decay=0.5))
    moved = 0.0
    for layer in masked_layers(model).values():
        rows, columns = layer.kept("default")
        delta = layer.get_delta_weight("default")
        moved += float(delta[rows][:, columns].abs().sum())
        outside = torch.ones_like(delta, dtype=torch.bool)
        outside[rows.unsqueeze(1), columns] = False
        assert not delta[outside].any()
    assert moved > 0


def test_with_nothing_taken_out_it_is_lora(tmp_path, monkeypatch):
    monkeypatch.setattr(Search, "share", lambda *_: 0.0)
    monkeypatch.setattr(partial_lora, "attach", double(partial_lora.attach))
    monkeypatch.setattr(adapter, "attach", double(adapter.attach))
    ours = method().fit(host(torch.float64), trainer(tmp_path / "ours", weight_decay=0.1))
    plain = Adapter(LoraConfig(target_modules=TARGETS, r=R, lora_alpha=6)).fit(
        host(torch.float64), trainer(tmp_path / "plain", weight_decay=0.1)
    )
    for path, layer in masked_layers(ours).items():
        expected = plain.get_submodule(f"base_model.model.{path}").get_delta_weight("default")
        torch.testing.assert_close(layer.get_delta_weight("default"), expected, atol=1e-10, rtol=0)
        assert expected.abs().max() > 1e-4


def test_a_killed_run_keeps_its_densities_and_ends_with_the_same_bits(tmp_path, monkeypatch):
    def fit(folder: Path, *dies_in: Any) -> nn.Module:
        return method(importance="imp", tau=0.7).fit(headed(), Dying(trainer(folder), *dies_in))

    whole = fit(tmp_path / "whole")
    for place in (("head", 1), ("importance", 1), ("train", 2)):
        with pytest.raises(Death):
            fit(tmp_path / "killed", *place)
    monkeypatch.setattr(Search, "run", lambda *_: pytest.fail("searched again"))
    resumed = fit(tmp_path / "killed")
    state = resumed.state_dict()
    assert all(torch.equal(state[name], value) for name, value in whole.state_dict().items())
    assert ticket(resumed, tmp_path / "a") == ticket(whole, tmp_path / "b")
    log = [json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert [line["evaluations"] for line in log if line["phase"] == "densities"] == [
        ticket(whole, tmp_path / "b")["evaluations"]
    ]


def test_snip_is_the_mean_over_batches_of_weight_times_gradient(tmp_path):
    frozen, run = host(torch.float64), trainer(tmp_path, batch_size=4)
    layers = target_layers(frozen, method().config)
    found = snip(frozen.net, layers, run)
    ids, labels = batch()
    expected = {path: torch.zeros_like(layer.weight) for path, layer in layers.items()}
    for step in range(2):
        numbers = [number for turn in run.feed.draw("importance", step).turns for number in turn]
        weights = {f"{path}.weight": layer.weight.detach().clone().requires_grad_() for path, layer in layers.items()}
        logits = functional_call(frozen.net, weights, kwargs={"input_ids": ids[numbers]}).logits
        nn.functional.cross_entropy(logits, labels[numbers]).backward()
        for path in layers:
            weight = weights[f"{path}.weight"]
            expected[path] += (weight * weight.grad).abs().detach() / 2
    for path, entries in expected.items():
        torch.testing.assert_close(found[path].rows, entries.sum(1), atol=1e-12, rtol=0)
        torch.testing.assert_close(found[path].columns, entries.sum(0), atol=1e-12, rtol=0)


def test_magnitudes_are_those_after_some_steps(tmp_path):
    frozen = host()
    layers = target_layers(frozen, method().config)
    start = {path: layer.weight.detach().clone() for path, layer in layers.items()}
    found = magnitudes(frozen.net, layers, trainer(tmp_path), steps=2, rate=0.1)
    for path, layer in layers.items():
        assert torch.equal(layer.weight, start[path])
        moved = (found[path].rows - start[path].abs().sum(1)).abs().max()
        assert 0 < moved <= 2 * 1e-3 * 24 + 1e-6, "two steps of AdamW at a tenth of 1e-2"
        assert float(found[path].rows.sum()) == pytest.approx(float(found[path].columns.sum()), rel=1e-5)
    assert not any(parameter.requires_grad for parameter in frozen.net.parameters())


def test_single_entries_can_be_kept_instead(tmp_path):
    lines = method(tau=0.7).fit(host(), trainer(tmp_path / "lines"))
    entries = method(tau=0.7, granularity="element").fit(host(), trainer(tmp_path / "entries"))
    for path, layer in masked_layers(entries).items():
        counts = [len(kept) for kept in masked_layers(lines)[path].kept("default")]
        assert [len(kept) for kept in layer.kept("default")] == [R * count for count in counts]


def test_what_is_saved_loads(tmp_path):
    model = method(selection="targeted").fit(headed(), trainer(tmp_path, max_steps=2))
    method().save(model, tmp_path / "adapter")
    loaded = method().load(headed(), tmp_path / "adapter")
    ids = batch()[0]
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": "best"}, "selection is one of random, targeted"),
        ({"importance": "svb"}, "importance is one of svd, snip, imp"),
        ({"lines": "none"}, "lines is one of both, rows, columns"),
        ({"kept_rows": 0.5}, "leave kept_rows and kept_cols of its config at 1.0"),
        ({"selection": "targeted", "granularity": "element"}, "Targeted-LoRA keeps whole rows and columns"),
        ({"tau": 1.5}, "tau is a share of the accuracy"),
        ({"delta": 0.0}, "delta is a share above 0"),
        ({"svd_energy": 1.5}, "svd_energy is a share above 0"),
        ({"shots": 0}, "shots must be 1 or more"),
    ],
)
def test_mistakes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        method(**options)


def test_layers_that_cannot_be_searched_are_refused():
    with pytest.raises(ValueError, match="names no layer of tiny/roberta"):
        target_layers(host(), method(target_modules=["qeury"]).config)
    with pytest.raises(ValueError, match="word_embeddings is a Embedding"):
        target_layers(host(), method(target_modules=["word_embeddings"]).config)
