"""Sparse adapters through the real trainer, against a dense masked training written apart."""

import itertools
from pathlib import Path

import pytest
import torch
from tests.methods.mcs_reference import DenseSearch, mask_of_largest
from tests.methods.search_runs import TARGETS, TOTAL, Death, Watched, batches, double, host, same, state, trainer

from tombola import SparseDeltaConfig
from tombola.adapters import sparse_layers
from tombola.methods import SparseAdapter, sparse_adapter

BLOCK = 4
KR = 0.3
ROWS = {"mask_update_unit": "micro_batch"}


@pytest.fixture
def in_double(monkeypatch):
    monkeypatch.setattr(sparse_adapter, "attach", double(sparse_adapter.attach))


def method(structure="element", kr=KR, **options):
    config = SparseDeltaConfig(target_modules=TARGETS, density=kr, structure=structure, block=BLOCK)
    return SparseAdapter(**{"config": config, "kr": kr, "mask_update_every": 1, **options})


def fit(method, folder: Path, *, dies_in=None, dtype=torch.float32, **settings):
    watched = Watched(trainer(folder, **settings), dies_in)
    return method.fit(host(dtype), watched), watched


def reference(watched, layers, choose, draws, **options):
    names = {path: path.removeprefix("base_model.model.") + ".weight" for path in layers}
    return DenseSearch(names, batches(watched.real), draws, choose, **options)


def units(layer, block=1):
    return int(KR * layer.out_features * layer.in_features) // block**2


RULES = {
    "mcs": lambda w, of_mask: of_mask,
    "neg_mcs": lambda w, of_mask: -of_mask,
    "cs": lambda w, of_mask: of_mask.abs(),
    "gm": lambda w, of_mask: (of_mask / w).abs(),  # dL/dM = w * g, and after a step no w is 0
    "wm": lambda w, of_mask: w.abs(),
}


@pytest.mark.parametrize(
    ("score", "structure"),
    [("mcs", "element"), ("mcs", "block"), ("neg_mcs", "block"), ("cs", "element"), ("gm", "element"), ("wm", "block")],
)
def test_the_search_is_the_dense_masked_one(tmp_path, in_double, score, structure):
    model, watched = fit(
        method(structure, score=score), tmp_path, dtype=torch.float64, weight_decay=0.1, optimizer="adamw"
    )
    layers, block = sparse_layers(model), BLOCK if structure == "block" else 1

    def choose(path, values, mask, of_mask, done):
        return mask_of_largest(RULES[score](values, of_mask), units(layers[path], block), block)

    expected = reference(watched, layers, choose, draws=[1, 2, 3, 4], weight_decay=0.1)
    dense = expected.run()
    changed = 0
    for path, layer in layers.items():
        kept = dense[path].values * dense[path].mask
        torch.testing.assert_close(layer.get_delta_weight("default"), kept, atol=1e-10, rtol=0)
        assert layer.count("default") == units(layer, block) * block**2 == int(dense[path].mask.sum())
        changed += sum(int((a[path] != b[path]).any()) for a, b in itertools.pairwise(expected.tickets))
    assert changed or score == "wm", "a search in which no ticket changes would compare nothing"


def test_gd_drops_small_values_and_grows_large_gradients(tmp_path, in_double):
    model, watched = fit(method(score="gd"), tmp_path, dtype=torch.float64)
    layers = sparse_layers(model)
    first = watched.begun["search"].support

    def choose(path, values, mask, of_mask, done):
        if done == 1:
            return torch.zeros_like(mask).flatten().index_fill(0, first[path], 1.0).view_as(mask)
        count = int(KR * mask.numel() * 0.2 * (1 - done / TOTAL))
        gradient = torch.where(mask.bool(), -1.0, of_mask.abs() / values.abs())
        stays = mask_of_largest(torch.where(mask.bool(), values.abs(), -1.0), int(mask.sum()) - count)
        return stays + mask_of_largest(gradient, count)

    dense = reference(watched, layers, choose, draws=[1, 2, 3, 4]).run()
    for path, layer in layers.items():
        kept = dense[path].values * dense[path].mask
        torch.testing.assert_close(layer.get_delta_weight("default"), kept, atol=1e-10, rtol=0)
        assert layer.count("default") == units(layer)


def test_layer_drop_empties_layers_and_fills_them_again(tmp_path, in_double):
    model, watched = fit(method(layer_drop=True), tmp_path, dtype=torch.float64)
    layers = sparse_layers(model)
    pooled = {}

    def choose(path, values, mask, of_mask, done):
        return pooled.setdefault(done, {})[path]

    expected = reference(watched, layers, choose, draws=[1, 2, 3, 4])

    def draw_all(dense, gradients, done, draw=expected.draw):
        scores = {path: gradients[path][1] for path in dense}
        ranked = sorted((-v, i, n) for i, s in enumerate(scores.values()) for n, v in enumerate(s.flatten().tolist()))
        best = [i for _, i, _ in ranked[: sum(units(layer) for layer in layers.values())]]
        pooled[done] = {
            path: mask_of_largest(score, units(layers[path]) if best.count(i) >= units(layers[path]) else 0)
            for i, (path, score) in enumerate(scores.items())
        }
        draw(dense, gradients, done)

    expected.draw = draw_all
    dense = expected.run()
    for path, layer in layers.items():
        kept = dense[path].values * dense[path].mask
        torch.testing.assert_close(layer.get_delta_weight("default"), kept, atol=1e-10, rtol=0)
        assert layer.count("default") in (0, units(layer))
    active = [sum(int(mask.any()) for mask in ticket.values()) for ticket in expected.tickets]
    assert min(active) < len(layers)
    assert [phase for phase, _ in watched.notes] == ["dense", "search-1", "search-2", "search-3"]
    assert [numbers["active_layers"] for _, numbers in watched.notes] == active


def test_the_ticket_is_frozen_after_the_mask_epochs(tmp_path):
    model, watched = fit(method(), tmp_path)
    assert list(watched.ended) == ["dense", "search", "train"]
    for path, layer in sparse_layers(model).items():
        assert torch.equal(watched.begun["train"].support[path], layer.support("default"))
        assert torch.equal(watched.ended["search"].support[path], layer.support("default"))
    moved = [path for path in watched.begun["search"].support if not torch.equal(
        watched.begun["search"].support[path], watched.ended["search"].support[path])]  # fmt: skip
    assert moved


def test_values_wait_until_the_last_draw_and_no_longer(tmp_path):
    _, watched = fit(method(), tmp_path)
    assert [watched.begun[phase].waits for phase in ("dense", "search", "train")] == [{False}, {True}, {False}]


def test_redrawing_keeps_the_parameters_objects(tmp_path):
    _, watched = fit(method(), tmp_path)
    for path, parameter in watched.begun["search"].parameter.items():
        assert parameter is watched.ended["search"].parameter[path]
        assert parameter is watched.ended["train"].parameter[path]


@pytest.mark.parametrize("phase", [("dense", 1), ("search", 1), ("train", 2)])
@pytest.mark.parametrize("structure", ["element", "block"])
def test_a_killed_run_ends_with_the_same_bits(tmp_path, phase, structure):
    options = {"mask_update_every": 2, "mask_epochs": 2}
    whole = state(fit(method(structure, **options), tmp_path / "whole")[0])
    with pytest.raises(Death):
        fit(method(structure, **options), tmp_path / "killed", dies_in=phase, checkpoint_every=1)
    resumed = state(fit(method(structure, **options), tmp_path / "killed")[0])
    assert same(whole, resumed)


def test_a_killed_layer_drop_ends_with_the_same_bits(tmp_path):
    whole = state(fit(method(layer_drop=True), tmp_path / "whole")[0])
    with pytest.raises(Death):
        fit(method(layer_drop=True), tmp_path / "killed", dies_in=("search-2", 0), checkpoint_every=1)
    assert same(whole, state(fit(method(layer_drop=True), tmp_path / "killed")[0]))


def test_the_seed_makes_gd_s_first_ticket(tmp_path):
    one, same_seed, other = (
        fit(method(score="gd", seed=seed), tmp_path / str(n), max_steps=2)[1].begun["search"].support
        for n, seed in enumerate((3, 3, 4))
    )
    assert same(one, same_seed)
    assert not same(one, other)


def test_it_is_one_training_in_pieces(tmp_path):
    """With kr=1 nothing is ever masked: the pieces are AdamW's and the schedule's one run."""
    pieces, _ = fit(method(kr=1.0), tmp_path / "pieces")
    one, _ = fit(method(kr=1.0, mask_epochs=3, mask_update_every=100), tmp_path / "one")
    assert same(state(pieces), state(one))


def test_what_is_saved_is_sparse_and_loads(tmp_path):
    for name, options in (("sparse", {}), ("drop", {"layer_drop": True}), ("late", {"mask_update_every": 1000})):
        chosen = method(**options)
        model, _ = fit(chosen, tmp_path / name, max_steps=5)
        chosen.save(model, tmp_path / name / "adapter")
        loaded = chosen.load(host(), tmp_path / name / "adapter")
        assert same(state(model), state(loaded)), name
        assert not any("waiting" in key for key in state(loaded))
        layers = sparse_layers(loaded).values()
        assert {layer.count("default") - units(layer) for layer in layers} <= {0, *(-units(x) for x in layers)}


@pytest.mark.parametrize(
    ("options", "draws", "rows"),
    [
        ({"mask_update_every": 2}, [2, 4], None),
        ({"mask_update_every": 3}, [3], None),
        ({"mask_update_every": 5}, [4], None),  # later than the mask epoch: at its end
        ({"mask_update_every": 2, "mask_epochs": 1.5}, [2, 4, 6], None),
        ({"mask_update_every": 3, "mask_epochs": 9}, [3, 6, 9, 12], None),
        # Two rows a step, a draw every five: 5 rows are there with step 3, 10 with 5, 15 with 8.
        ({"mask_update_every": 5, "mask_epochs": 2, **ROWS, "micro_batches": 2}, [3, 5, 8], 1),
        ({"mask_update_every": 1, **ROWS, "score_rows": 2}, [1, 2, 3, 4], 2),
    ],
)  # fmt: skip
def test_when_tickets_are_drawn(tmp_path, options, draws, rows):
    real, chosen = trainer(tmp_path), method(**options)
    assert chosen.draws(real) == draws
    assert chosen.search(torch.nn.Module(), real, draws).rows == rows


def test_the_score_may_be_of_one_row(tmp_path, in_double):
    model, watched = fit(method(score_rows=1, mask_update_every=4), tmp_path, dtype=torch.float64)
    layers = sparse_layers(model)
    choose = lambda path, values, mask, of_mask, done: mask_of_largest(of_mask, units(layers[path]))  # noqa: E731
    expected = reference(watched, layers, choose, draws=[4], score_rows=1)
    dense = expected.run()
    for path, layer in layers.items():
        assert layer.support("default").tolist() == dense[path].mask.flatten().nonzero().flatten().tolist()
        assert layer.count("default") == units(layer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "snip"}, "score must be one of"),
        ({"mask_update_unit": "row"}, "mask_update_unit must be one of"),
        ({"mask_update_every": 0}, "mask_update_every must be at least 1"),
        ({"mask_epochs": 0}, "mask_epochs must be above 0"),
        ({"score": "gd", "layer_drop": True}, "gd gives none"),
        ({"config": SparseDeltaConfig(target_modules=TARGETS, density=0.2)}, "density equal to kr"),
    ],
)
def test_mistakes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        method(**options)
