"""LoTA through the real trainer against full fine-tuning of plain weights and a dense masked loop."""

from dataclasses import replace

import pytest
import torch
from tests.methods.sparse_runs import (
    ENTRIES,
    STEPS,
    TARGETS,
    Death,
    Watched,
    double,
    host,
    largest,
    loss_of,
    reference,
    trainer,
)

from tombola.adapters import SparseDeltaConfig, sparse_layers
from tombola.methods import Lota, lota
from tombola.methods.sparse import attach

CONFIG = SparseDeltaConfig(target_modules=TARGETS, support="full")


def fine_tuned(paths, lr, steps=STEPS):
    """What full fine-tuning adds to the weights, which are themselves the parameters here."""
    net = host(torch.float64).net
    weights = {path: path.removeprefix("base_model.model.") + ".weight" for path in paths}
    trained = {name: net.get_parameter(name).detach().clone().requires_grad_() for name in weights.values()}
    optimizer = torch.optim.AdamW(trained.values(), lr=lr, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(net, trained).backward()
        optimizer.step()
    return {path: (trained[name] - net.get_parameter(name)).detach() for path, name in weights.items()}


def masks_of(change, count):
    """The `count` largest over all layers, by sorting one list."""
    flat = torch.zeros(sum(one.numel() for one in change.values()), dtype=torch.bool)
    flat[largest(torch.cat([one.flatten() for one in change.values()]).abs(), count)] = True
    pieces = flat.split([one.numel() for one in change.values()])
    return {path: piece.view_as(change[path]) for path, piece in zip(change, pieces, strict=True)}


@pytest.mark.parametrize("factor", [1.0, 0.05])
def test_it_is_full_finetuning_then_dense_masked_weights(monkeypatch, tmp_path, factor):
    monkeypatch.setattr(lota, "attach", double(attach))
    watched = Watched(trainer(tmp_path))
    Lota(CONFIG, sparsity=0.97, dense_lr_factor=factor).fit(host(torch.float64), watched)
    paths = list(watched.begun["dense"].values)
    change = fine_tuned(paths, lr=1e-2 * factor)
    masks = masks_of(change, round(0.03 * sum(one.numel() for one in change.values())))
    zeros = {path: torch.zeros_like(one) for path, one in change.items()}
    final, _ = reference(paths).train(zeros, masks, gate=None)
    for path in paths:
        torch.testing.assert_close(watched.ended["dense"].values[path], change[path], rtol=0, atol=1e-10)
        assert torch.equal(watched.begun["sparse"].mask(path), masks[path])
        assert not watched.begun["sparse"].values[path].any(), "rewound to the pretrained weights"
        torch.testing.assert_close(watched.ended["sparse"].values[path], final[path], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("sparsity", "kept"), [(0.9, 179), (0.999, 2), (0.0, 1792)])
def test_exactly_so_many_are_kept_over_the_model(tmp_path, sparsity, kept):
    watched = Watched(trainer(tmp_path, weight_decay=1.0))
    method = Lota(CONFIG, sparsity=sparsity, dense_epochs=1)
    model = method.fit(host(), watched)
    assert sum(layer.all_units("default") for layer in sparse_layers(model).values()) == ENTRIES
    sizes = [layer.support("default").numel() for layer in sparse_layers(model).values()]
    assert sum(sizes) == kept
    assert 0 in sizes or kept == ENTRIES, "a layer may be left with nothing"
    ended = watched.ended["sparse"]
    assert all(torch.equal(ended.values[path] * ended.mask(path), ended.values[path]) for path in ended.values)
    method.save(model, tmp_path / "saved")
    loaded, ids = method.load(host(), tmp_path / "saved"), torch.arange(3, 13).view(1, 10)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
        assert not torch.equal(loaded(ids).logits, host().net(ids).logits)


def test_equal_changes_are_kept_by_layer_then_index():
    layers = sparse_layers(attach(host(), CONFIG, seed=0))
    chosen = lota.most_changed(layers, 300)
    sizes = [layer.all_units("default") for layer in layers.values()]
    assert [index.numel() for index in chosen.values()] == [
        min(max(300 - sum(sizes[:i]), 0), n) for i, n in enumerate(sizes)
    ]
    assert all(torch.equal(index, torch.arange(index.numel())) for index in chosen.values())


def test_the_dense_phase_may_be_shorter(tmp_path):
    real = trainer(tmp_path)
    Lota(CONFIG, dense_epochs=2).fit(host(), Watched(real))
    assert {phase: history.steps for phase, history in real.histories.items()} == {"dense": 2, "sparse": STEPS}


@pytest.mark.parametrize("phase", ["dense", "sparse"])
def test_a_run_killed_in_any_phase_ends_as_an_uninterrupted_one(tmp_path, phase):
    method = Lota(CONFIG, dense_lr_factor=0.5)
    method.save(method.fit(host(), Watched(trainer(tmp_path / "whole"))), tmp_path / "a")
    with pytest.raises(Death):
        method.fit(host(), Watched(trainer(tmp_path / "cut"), dies_in=(phase, 2)))
    method.save(method.fit(host(), Watched(trainer(tmp_path / "cut"))), tmp_path / "b")
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in "ab")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": replace(CONFIG, gate=True)}, "LoTA begins with full fine-tuning .* Got support=full, gate=True"),
        ({"config": replace(CONFIG, delta_init="normal")}, "delta_init=normal"),
        ({"config": replace(CONFIG, support="random", count=3)}, "support=random"),
        ({"sparsity": 1.0}, "sparsity is a share of at least 0 and below 1. Got 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(Lota(CONFIG), **changes)
