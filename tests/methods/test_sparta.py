"""SpaRTA's three counts, and its training through the real trainer against a dense masked loop."""

import pytest
import torch
from tests.methods.sparse_runs import TARGETS, Death, Watched, double, host, reference, trainer

from tombola.adapters import SparseDeltaConfig, sparse_layers
from tombola.methods import Sparta, sparta
from tombola.methods.sparse import attach
from tombola.methods.sparta import drawn

CONFIGS = {
    "per_module_k": {"count": 40},
    "density": {"density": 0.2},
    "global_bernoulli": {"density": 0.2},
}


def method(mode, **changes):
    fields = {"target_modules": TARGETS, "scale": 4.0, "seed": 3, **CONFIGS[mode], **changes}
    return Sparta(SparseDeltaConfig(**fields), count_mode=mode)


@pytest.mark.parametrize("mode", CONFIGS)
def test_it_is_dense_masked_weights_times_alpha(monkeypatch, tmp_path, mode):
    monkeypatch.setattr(sparta, "attach", double(attach))
    watched = Watched(trainer(tmp_path, weight_decay=1.0))
    method(mode).fit(host(torch.float64), watched)
    begun, ended = watched.begun["train"], watched.ended["train"]
    masks = {path: begun.mask(path) for path in begun.values}
    values, _ = reference(list(masks), scale=4.0, weight_decay=1.0).train(begun.values, masks, gate=None)
    for path in masks:
        assert not begun.values[path].any()
        torch.testing.assert_close(ended.values[path], values[path], rtol=0, atol=1e-10)
        assert torch.equal(ended.values[path] * masks[path], ended.values[path])


def counts(mode, folder, **changes):
    watched = Watched(trainer(folder))
    model = method(mode, **changes).fit(host(), watched)
    return {path: layer.support("default").numel() for path, layer in sparse_layers(model).items()}, watched


def test_each_mode_counts_as_it_says(tmp_path):
    sizes = {path: one.numel() for path, one in counts("density", tmp_path / "a")[1].begun["train"].values.items()}
    assert set(counts("per_module_k", tmp_path / "b")[0].values()) == {40}
    assert counts("density", tmp_path / "c")[0] == {path: int(0.2 * size) for path, size in sizes.items()}
    bernoulli = counts("global_bernoulli", tmp_path / "d")[0]
    assert bernoulli != counts("density", tmp_path / "e")[0]
    for path, count in bernoulli.items():
        assert abs(count - 0.2 * sizes[path]) < 4 * (0.2 * 0.8 * sizes[path]) ** 0.5


def test_a_bernoulli_draw_is_the_seeds_and_the_layers():
    one = drawn("a", 100_000, 0.25, seed=1)
    assert torch.equal(one, drawn("a", 100_000, 0.25, seed=1))
    assert bool((one[1:] > one[:-1]).all())
    for other in (drawn("a", 100_000, 0.25, seed=2), drawn("b", 100_000, 0.25, seed=1)):
        both = torch.isin(one, other).sum().item()
        assert abs(both - 0.0625 * 100_000) < 400, "independent: a sixteenth is in both"
    assert abs(one.numel() - 25_000) < 600
    assert torch.equal(drawn("a", 50, 1.0, seed=1), torch.arange(50))


@pytest.mark.parametrize("mode", CONFIGS)
def test_what_is_saved_answers_as_what_was_trained(tmp_path, mode):
    recipe, ids = method(mode), torch.arange(3, 13).view(1, 10)
    model = recipe.fit(host(), Watched(trainer(tmp_path)))
    recipe.save(model, tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(recipe.load(host(), tmp_path / "saved")(ids).logits, model(ids).logits)
        assert not torch.equal(model(ids).logits, host().net(ids).logits)


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path):
    recipe = method("global_bernoulli")
    recipe.save(recipe.fit(host(), Watched(trainer(tmp_path / "whole"))), tmp_path / "a")
    with pytest.raises(Death):
        recipe.fit(host(), Watched(trainer(tmp_path / "cut"), dies_in=("train", 2)))
    recipe.save(recipe.fit(host(), Watched(trainer(tmp_path / "cut"))), tmp_path / "b")
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in "ab")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("per_module_k", {"count": None, "density": 0.1}, r"reads count: set config.count, config.density=null"),
        ("density", {"count": 3, "density": None}, "reads density: set config.density, config.count=null"),
        ("global_bernoulli", {"density": None, "support": "full"}, "Got count=None, density=None, support=full"),
        ("global_bernoulli", {"structure": "block", "block": 4}, "global_bernoulli draws single entries"),
    ],
)
def test_a_mode_and_a_config_that_do_not_fit_are_refused(mode, changes, message):
    with pytest.raises(ValueError, match=message):
        method(mode, **changes)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="count_mode must be one of per_module_k, density, global_bernoulli"):
        Sparta(method("density").config, count_mode="k")
