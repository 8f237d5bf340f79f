"""LT-SFT through the real trainer against dense masked weights, and the way back between its phases."""

from dataclasses import replace

import pytest
import torch
from tests.methods.sparse_runs import ENTRIES, TARGETS, Death, Watched, double, host, reference, trainer
from tests.methods.test_lota import fine_tuned, masks_of

from tombola.adapters import SparseDeltaConfig, sparse_layers
from tombola.methods import LtSft, lt_sft
from tombola.methods.sparse import attach

CONFIG = SparseDeltaConfig(target_modules=TARGETS, support="full")


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(lt_sft, "attach", double(attach))


def test_with_all_entries_it_is_full_finetuning_restarted(exact, tmp_path):
    watched = Watched(trainer(tmp_path))
    LtSft(CONFIG, density=1.0).fit(host(torch.float64), watched)
    change = fine_tuned(list(watched.begun["dense-0"].values), lr=1e-2)
    for path, expected in change.items():
        assert watched.begun["sparse-0"].mask(path).all()
        assert not watched.begun["sparse-0"].values[path].any()
        torch.testing.assert_close(watched.ended["sparse-0"].values[path], expected, rtol=0, atol=1e-10)


def test_two_iterations_are_those_of_dense_masked_weights(exact, tmp_path):
    """101 entries: 50, then 51 among those that are still frozen; back to theta before each dense phase."""
    watched = Watched(trainer(tmp_path))
    LtSft(CONFIG, density=101 / ENTRIES, n_iterations=2).fit(host(torch.float64), watched)
    paths = list(watched.begun["dense-0"].values)
    plain = reference(paths)
    theta = {path: torch.zeros_like(one) for path, one in watched.begun["dense-0"].values.items()}
    everything = {path: torch.ones_like(one, dtype=torch.bool) for path, one in theta.items()}
    unfrozen = {path: ~mask for path, mask in everything.items()}
    for number, count in enumerate([50, 51]):
        dense, _ = plain.train(theta, everything, gate=None)
        frozen_change = {path: torch.where(unfrozen[path], -1.0, one.abs()) for path, one in dense.items()}
        new = masks_of({path: one.clamp(min=0) for path, one in frozen_change.items()}, count)
        assert not any((new[path] & unfrozen[path]).any() for path in paths)
        unfrozen = {path: unfrozen[path] | new[path] for path in paths}
        begun, ended = watched.begun[f"sparse-{number}"], watched.ended[f"sparse-{number}"]
        for path in paths:
            torch.testing.assert_close(begun.values[path], theta[path], rtol=0, atol=1e-10)
            assert torch.equal(begun.mask(path), unfrozen[path])
        theta, _ = plain.train(theta, unfrozen, gate=None)
        for path in paths:
            torch.testing.assert_close(ended.values[path], theta[path], rtol=0, atol=1e-10)
    assert any(one.any() for one in watched.begun["dense-1"].values.values())


@pytest.mark.parametrize(("density", "iterations", "kept"), [(0.01, 1, 18), (0.1, 3, 179)])
def test_exactly_so_many_are_unfrozen_over_the_model(tmp_path, density, iterations, kept):
    watched = Watched(trainer(tmp_path, weight_decay=1.0))
    method = LtSft(CONFIG, density=density, n_iterations=iterations, dense_epochs=1)
    model = method.fit(host(), watched)
    assert sum(layer.support("default").numel() for layer in sparse_layers(model).values()) == kept
    ended = watched.ended[f"sparse-{iterations - 1}"]
    assert all(torch.equal(ended.values[path] * ended.mask(path), ended.values[path]) for path in ended.values)
    method.save(model, tmp_path / "saved")
    loaded, ids = method.load(host(), tmp_path / "saved"), torch.arange(3, 13).view(1, 10)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
        assert not torch.equal(loaded(ids).logits, host().net(ids).logits)


RESUMED = LtSft(CONFIG, density=0.05, n_iterations=2)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    RESUMED.save(RESUMED.fit(host(), Watched(trainer(folder, epochs=2))), folder / "adapter")
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("phase", ["dense-0", "sparse-0", "dense-1", "sparse-1"])
def test_a_run_killed_in_any_phase_ends_as_an_uninterrupted_one(uninterrupted, tmp_path, phase):
    with pytest.raises(Death):
        RESUMED.fit(host(), Watched(trainer(tmp_path, epochs=2), dies_in=(phase, 1)))
    RESUMED.save(RESUMED.fit(host(), Watched(trainer(tmp_path, epochs=2))), tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == uninterrupted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": replace(CONFIG, gate=True)}, "LT-SFT begins with full fine-tuning"),
        ({"density": 0.0}, "density is a share above 0"),
        ({"n_iterations": 0}, "n_iterations must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(LtSft(CONFIG), **changes)
