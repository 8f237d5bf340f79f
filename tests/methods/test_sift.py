"""SIFT through the real trainer, against a dense masked training written apart."""

from pathlib import Path

import pytest
import torch
from tests.methods.mcs_reference import Dense, DenseSearch, mask_of_largest
from tests.methods.search_runs import TARGETS, Death, Watched, batches, double, host, same, state, trainer

from tombola import SparseDeltaConfig
from tombola.adapters import sparse_layers
from tombola.methods import Sift, sift


def method(density=0.1, **options):
    return Sift(SparseDeltaConfig(target_modules=TARGETS, density=density, **options))


def fit(method, folder: Path, *, dies_in=None, dtype=torch.float32, **settings):
    watched = Watched(trainer(folder, **settings), dies_in)
    return method.fit(host(dtype), watched), watched


def test_it_trains_the_largest_gradients_of_the_first_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(sift, "attach", double(sift.attach))
    model, watched = fit(method(), tmp_path, dtype=torch.float64, weight_decay=0.1)
    layers = sparse_layers(model)
    names = {path: path.removeprefix("base_model.model.") + ".weight" for path in layers}
    reference = DenseSearch(names, batches(watched.real), weight_decay=0.1)
    start = {path: Dense.like(reference.frozen[name]) for path, name in names.items()}
    first = reference.gradients(start, reference.batches[0], awake=True)
    counts = {path: int(0.1 * gradient.numel()) + 1 for path, (gradient, _) in first.items()}
    masks = {path: mask_of_largest(gradient.abs(), counts[path]) for path, (gradient, _) in first.items()}
    dense = reference.run(masks)
    for path, layer in layers.items():
        assert layer.count("default") == counts[path] == int(masks[path].sum())
        torch.testing.assert_close(layer.get_delta_weight("default"), dense[path].values, atol=1e-10, rtol=0)


def test_every_entry_is_the_most(tmp_path):
    model, _ = fit(method(density=1.0), tmp_path, max_steps=1)
    assert all(layer.count("default") == layer.all_units("default") for layer in sparse_layers(model).values())


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    whole = state(fit(method(), tmp_path / "whole")[0])
    with pytest.raises(Death):
        fit(method(), tmp_path / "killed", dies_in=("train", 5), checkpoint_every=1)
    assert same(whole, state(fit(method(), tmp_path / "killed")[0]))


def test_what_is_saved_loads(tmp_path):
    model, _ = fit(method(), tmp_path, max_steps=2)
    method().save(model, tmp_path / "adapter")
    assert same(state(model), state(method().load(host(), tmp_path / "adapter")))


@pytest.mark.parametrize("options", [{"gate": True}, {"structure": "block"}, {"delta_init": "normal"}])
def test_mistakes_are_refused(options):
    with pytest.raises(ValueError, match="SIFT trains single entries from zero"):
        method(**options)
    with pytest.raises(ValueError, match="SIFT trains single entries from zero"):
        method(density=None, support="full")
