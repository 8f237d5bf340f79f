"""SpIEL through the real trainer, against a dense training with AdamW by hand."""

import math
from pathlib import Path

import pytest
import torch
from tests.methods.mcs_reference import BETAS, EPS, Dense, DenseSearch, mask_of_largest
from tests.methods.search_runs import TARGETS, TOTAL, Death, Watched, batches, double, host, same, state, trainer

from tombola import SparseDeltaConfig
from tombola.adapters import sparse_layers
from tombola.methods import Spiel, spiel

PERIOD, ACCUMULATE, WEIGHT_DECAY = 4, 2, 0.1


def method(density=0.3, seed=0, **options):
    config = SparseDeltaConfig(target_modules=TARGETS, density=density, seed=seed)
    return Spiel(config, **{"reselect_every": PERIOD, "accumulate": ACCUMULATE, **options})


def fit(method, folder: Path, *, dies_in=None, dtype=torch.float32, **settings):
    watched = Watched(trainer(folder, **{"optimizer": "adamw_per_entry", **settings}), dies_in)
    return method.fit(host(dtype), watched), watched


class DenseSpiel(DenseSearch):
    """Everything (out, in); `age` is an entry's own or, under plain AdamW, the number of steps for all."""

    per_entry = True
    swapped = 0

    def run(self, masks):
        dense = {path: Dense.like(self.frozen[name]) for path, name in self.weights.items()}
        ages = {path: torch.zeros_like(one.mask) for path, one in dense.items()}
        seen = {}
        for path, mask in masks.items():
            dense[path].mask = mask.clone()
        for step, batch in enumerate(self.batches):
            gradients = {path: pair[0] for path, pair in self.gradients(dense, batch, awake=True).items()}
            for path, one in dense.items():
                self.add_up(seen, path, gradients[path], int(one.mask.sum()), step % PERIOD)
                ages[path] += 1
                self.step(one, gradients[path], ages[path], self.rate(step))
                if step % PERIOD == ACCUMULATE - 1:
                    share = 1.0 if step + 1 == ACCUMULATE else 0.2 * (1 - (step + 1) / TOTAL)
                    self.swap(one, ages[path], *seen[path], int(share * int(one.mask.sum())))
        return dense

    def add_up(self, seen, path, gradient, count, place):
        if place == 0:
            candidates = mask_of_largest(gradient.abs(), count)
            seen[path] = (candidates, torch.zeros_like(gradient), torch.zeros_like(gradient))
        if place < ACCUMULATE:
            candidates, total, squares = seen[path]
            total += candidates * gradient
            squares += candidates * gradient**2

    def step(self, one, gradient, age, lr):
        on = one.mask
        one.mean = on * (BETAS[0] * one.mean + (1 - BETAS[0]) * gradient)
        one.square = on * (BETAS[1] * one.square + (1 - BETAS[1]) * gradient**2)
        size = (one.square / (1 - BETAS[1] ** age)).sqrt() + EPS
        one.values = on * (one.values * (1 - lr * self.weight_decay) - lr * one.mean / (1 - BETAS[0] ** age) / size)

    def swap(self, one, age, candidates, total, squares, count):
        infinity = torch.full_like(one.mask, -math.inf)
        stays = mask_of_largest(torch.where(one.mask > 0, one.values.abs(), infinity), int(one.mask.sum()) - count)
        grown = mask_of_largest(torch.where(candidates * (1 - stays) > 0, total.abs(), infinity), count)
        fresh = grown * (1 - one.mask)
        self.swapped += int(fresh.sum())
        if self.per_entry:
            age[fresh > 0] = ACCUMULATE
        one.values = one.values * (1 - fresh) * (stays + grown)
        mean, square = total / ACCUMULATE * (1 - BETAS[0] ** age), squares / ACCUMULATE * (1 - BETAS[1] ** age)
        one.mean = torch.where(fresh > 0, mean, one.mean) * (stays + grown)
        one.square = torch.where(fresh > 0, square, one.square) * (stays + grown)
        one.mask = stays + grown


@pytest.mark.parametrize("optimizer", ["adamw_per_entry", "adamw"])
def test_it_is_the_dense_one(tmp_path, monkeypatch, optimizer):
    monkeypatch.setattr(spiel, "attach", double(spiel.attach))
    settings = {"optimizer": optimizer, "weight_decay": WEIGHT_DECAY}
    model, watched = fit(method(), tmp_path, dtype=torch.float64, **settings)
    layers = sparse_layers(model)
    names = {path: path.removeprefix("base_model.model.") + ".weight" for path in layers}
    reference = DenseSpiel(names, batches(watched.real), weight_decay=WEIGHT_DECAY)
    reference.per_entry = optimizer == "adamw_per_entry"
    shapes = {path: reference.frozen[name].shape for path, name in names.items()}
    start = watched.begun["train"].support
    masks = {p: torch.zeros(s.numel()).index_fill(0, start[p], 1.0).view(s).double() for p, s in shapes.items()}
    dense = reference.run(masks)
    for path, layer in layers.items():
        assert layer.support("default").tolist() == dense[path].mask.flatten().nonzero().flatten().tolist()
        torch.testing.assert_close(layer.get_delta_weight("default"), dense[path].values, atol=1e-10, rtol=0)
    entries = sum(int(mask.sum()) for mask in masks.values())
    assert sum(numbers["replaced"] for _, numbers in watched.notes) == pytest.approx(reference.swapped / entries)
    assert reference.swapped > entries / 2, "the first time all that were not candidates go"


def test_the_support_keeps_its_size_and_its_parameter(tmp_path):
    model, watched = fit(method(), tmp_path)
    for path, layer in sparse_layers(model).items():
        before, after = watched.begun["train"].support[path], layer.support("default")
        assert len(before) == len(after) == int(0.3 * layer.all_units("default"))
        assert after.tolist() == sorted(set(after.tolist()))
        assert before.tolist() != after.tolist()
        assert watched.begun["train"].parameter[path] is layer.sparse_delta_values["default"].weight


@pytest.mark.parametrize("step", [0, 4, 5, 6])  # while gradients add up, just before and after a change
def test_a_killed_run_ends_with_the_same_bits(tmp_path, step):
    whole = state(fit(method(), tmp_path / "whole")[0])
    with pytest.raises(Death):
        fit(method(), tmp_path / "killed", dies_in=("train", step), checkpoint_every=1)
    assert same(whole, state(fit(method(), tmp_path / "killed")[0]))


def test_the_seed_is_the_start_s(tmp_path):
    supports = [
        fit(method(seed=seed), tmp_path / str(n), max_steps=1)[1].begun["train"].support
        for n, seed in enumerate((3, 3, 4))
    ]
    assert same(supports[0], supports[1])
    assert not same(supports[0], supports[2])


def test_nothing_of_the_search_is_saved(tmp_path):
    model, _ = fit(method(), tmp_path, max_steps=3)
    method().save(model, tmp_path / "adapter")
    assert not [name for name in state(model) if "candidates" in name]
    assert same(state(model), state(method().load(host(), tmp_path / "adapter")))


def test_an_optimizer_without_moments_needs_no_seeds(tmp_path):
    model, watched = fit(method(), tmp_path, optimizer="sgd", max_steps=ACCUMULATE)  # ends with a change of the support
    for path, layer in sparse_layers(model).items():
        before, after = watched.begun["train"].support[path], layer.support("default")
        grown, values = ~torch.isin(after, before), layer.sparse_delta_values["default"].weight
        assert grown.any()
        assert not values[grown].any()
        assert values[~grown].any()


def test_the_share_that_changes():
    linear, cosine = method(), method(decay="cosine")
    assert [linear.fraction(done, 100) for done in (ACCUMULATE, 50, 100)] == [1.0, pytest.approx(0.1), 0.0]
    assert cosine.fraction(ACCUMULATE, 100) == pytest.approx(0.1 * (1 + math.cos(math.pi * 0.02)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 5}, "at most reselect_every"),
        ({"accumulate": 0}, "at least 1"),
        ({"initial_fraction": 0.0}, "initial_fraction is a share"),
        ({"decay": "step"}, "linear or cosine"),
        ({"config": SparseDeltaConfig(target_modules=TARGETS, support="full")}, "support=random"),
    ],
)
def test_mistakes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Spiel(**{"config": method().config, "reselect_every": 4, "accumulate": 2, **options})
