"""RIGSA through the real trainer: the properties of its algorithm, and a dense reference of whole runs."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.methods.sparse_runs import TARGETS, Death, Watched, double, host, largest, reference, trainer

from tombola.adapters import SparseDeltaConfig, sparse_layers
from tombola.methods import Rigsa, rigsa
from tombola.methods.sparse import attach

GATE = 2.0**-20  # about 1e-6, and the same number in float32 and float64


def config(**changes):
    fields = {"support": "full", "gate": True, "gate_init": GATE, "delta_init": "kaiming", "seed": 3, **changes}
    return SparseDeltaConfig(target_modules=TARGETS, **fields)


def method(n_prunings=2, **changes):
    return Rigsa(config(), n_prunings=n_prunings, **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with the paper's weight decay and a rate at which some signs flip; its folder and its model."""
    folder = tmp_path_factory.mktemp("rigsa")
    watched = Watched(trainer(folder, weight_decay=1.0, lr=4e-2))
    watched.model = method().fit(host(), watched)
    watched.folder = folder
    return watched


def pruned_by_lists(values, starts, masks, gates, share, scope):
    """Masks after a pruning, from the formulas, entry by entry."""
    stable = {path: masks[path] & (values[path] * starts[path] > 0) for path in masks}
    weight = {path: gates[path].abs() if scope == "global" else 1.0 for path in masks}
    scores = {path: torch.where(stable[path], values[path].abs() * weight[path], -1.0) for path in masks}
    if scope == "global":
        kept = largest(torch.cat([s.flatten() for s in scores.values()]), math.floor(share * _count(stable)))
        flat = torch.zeros(sum(m.numel() for m in masks.values()), dtype=torch.bool)
        flat[kept] = True
        pieces = flat.split([m.numel() for m in masks.values()])
        return {path: piece.view_as(masks[path]) for path, piece in zip(masks, pieces, strict=True)}
    new = {path: torch.zeros_like(mask) for path, mask in masks.items()}
    for path, score in scores.items():
        new[path].view(-1)[largest(score, math.floor(share * int(stable[path].sum())))] = True
    return new


def _count(masks):
    return sum(int(mask.sum()) for mask in masks.values())


@pytest.mark.parametrize("scope", ["per_layer", "global"])
def test_every_round_is_that_of_dense_masked_weights(monkeypatch, tmp_path, scope):
    monkeypatch.setattr(rigsa, "attach", double(attach))
    watched = Watched(trainer(tmp_path, weight_decay=1.0, lr=4e-2))
    method(rank_scope=scope).fit(host(torch.float64), watched)
    starts = watched.begun["round-0"].values
    masks = {path: torch.ones_like(start, dtype=torch.bool) for path, start in starts.items()}
    plain = reference(list(starts), lr=4e-2, weight_decay=1.0)
    for number in range(3):
        values, gates = plain.train(starts, masks, gate=GATE)
        ended = watched.ended[f"round-{number}"]
        for path, mask in masks.items():
            assert torch.equal(watched.begun[f"round-{number}"].mask(path), mask)
            torch.testing.assert_close(ended.values[path], values[path], rtol=0, atol=1e-10)
            torch.testing.assert_close(ended.gates[path], gates[path].view(1), rtol=0, atol=1e-10)
        masks = pruned_by_lists(values, starts, masks, gates, 0.8, scope)


def test_what_is_kept_starts_again_where_it_started(run):
    starts = run.begun["round-0"].values
    for number in (1, 2):
        begun, ended = run.begun[f"round-{number}"], run.ended[f"round-{number}"]
        for path, start in starts.items():
            mask = begun.mask(path)
            assert 0 < mask.sum() < mask.numel()
            assert torch.equal(begun.values[path], start * mask), "kept entries are rewound bit for bit, others are 0"
            assert torch.equal(ended.values[path] != 0, mask & (ended.values[path] != 0))
            assert torch.equal(begun.gates[path], torch.tensor([GATE]))
            assert not torch.equal(ended.values[path][mask], start[mask])


def test_masks_are_nested_and_no_flipped_entry_survives(run):
    starts, flipped_ones = run.begun["round-0"].values, 0
    for number in (0, 1):
        begun, ended, after = (
            run.begun[f"round-{number}"],
            run.ended[f"round-{number}"],
            run.begun[f"round-{number + 1}"],
        )
        for path, start in starts.items():
            mask, kept = begun.mask(path), after.mask(path)
            flipped = mask & (ended.values[path].sign() != start.sign())
            flipped_ones += int(flipped.sum())
            assert not (kept & ~mask).any()
            assert not (kept & flipped).any()
            assert int(kept.sum()) == math.floor(0.8 * int((mask & ~flipped).sum()))
            stable = mask & ~flipped
            assert ended.values[path][kept].abs().min() >= ended.values[path][stable & ~kept].abs().max()
    assert flipped_ones > 20


def test_density_and_flip_rate_are_noted_for_each_round(run, tmp_path):
    starts = run.begun["round-0"].values
    entries = sum(start.numel() for start in starts.values())
    assert list(run.notes) == ["round-0", "round-1", "round-2"]
    for phase, noted in run.notes.items():
        begun, ended = run.begun[phase], run.ended[phase]
        free = _count({path: begun.mask(path) for path in starts})
        flipped = {path: begun.mask(path) & (ended.values[path].sign() != starts[path].sign()) for path in starts}
        assert noted == {"density": free / entries, "flip_rate": pytest.approx(_count(flipped) / free)}
    _saved(run, tmp_path)
    assert json.loads((tmp_path / "ticket.json").read_text()) == {"rounds": list(run.notes.values())}
    logged = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [line["density"] for line in logged if "density" in line] == [n["density"] for n in run.notes.values()]


def test_the_start_comes_from_the_seed_and_is_never_stored(run, tmp_path):
    again, other = (attach(host(), config(seed=seed), seed=0) for seed in (3, 4))
    for path, layer in sparse_layers(again).items():
        assert torch.equal(layer.dense_values("default"), run.begun["round-0"].values[path])
        assert not torch.equal(sparse_layers(other)[path].dense_values("default"), layer.dense_values("default"))
        bound = layer.in_features**-0.5
        assert 0.9 * bound < layer.dense_values("default").abs().max() <= bound
    kept = sum(support.numel() for support in run.ended["round-2"].support.values())
    layers = len(run.begun["round-0"].values)
    for file in (run.folder / "phases" / "round-2" / "values.safetensors", _saved(run, tmp_path)):
        assert sum(value.numel() for value in load_file(file).values()) == 2 * kept + layers


def _saved(run, folder):
    method().save(run.model, folder)
    return folder / "adapter_model.safetensors"


def test_what_is_saved_answers_as_what_was_trained(run, tmp_path):
    _saved(run, tmp_path)
    ids = torch.arange(3, 13).view(1, 10)
    loaded = method().load(host(), tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, run.model(ids).logits)
        assert not torch.equal(loaded(ids).logits, host().net(ids).logits)


def test_a_closed_gate_is_the_base_and_gate_and_delta_share_a_scale(run, tmp_path):
    _saved(run, tmp_path)
    model, ids = method().load(host(), tmp_path), torch.arange(3, 13).view(1, 10)
    with torch.no_grad():
        before = model(ids).logits
        for layer in sparse_layers(model).values():
            layer.sparse_delta_gate["default"].weight *= 4
            layer.sparse_delta_values["default"].weight /= 4
        assert torch.equal(model(ids).logits, before)
        for layer in sparse_layers(model).values():
            layer.sparse_delta_gate["default"].weight.zero_()
        assert torch.equal(model(ids).logits, host().net(ids).logits)


def test_an_entry_that_ends_at_zero_has_no_sign():
    model = attach(host(), config(), seed=0)
    for layer in sparse_layers(model).values():
        layer.sparse_delta_values["default"].weight.data[3] = 0.0
    method(keep_of_stable=1.0).prune(sparse_layers(model), 1)
    for layer in sparse_layers(model).values():
        everything = torch.arange(layer.all_units("default"))
        assert torch.equal(layer.support("default"), everything[everything != 3])


@pytest.mark.parametrize("scope", ["per_layer", "global"])
def test_a_target_density_is_hit(tmp_path, scope):
    watched = Watched(trainer(tmp_path))
    method(target_density=0.04, rank_scope=scope).fit(host(), watched)
    sizes = {path: values.numel() for path, values in watched.begun["round-0"].values.items()}
    middle, last = (watched.begun[f"round-{number}"].support for number in (1, 2))
    if scope == "per_layer":
        assert {path: index.numel() for path, index in middle.items()} == {p: round(0.2 * n) for p, n in sizes.items()}
        assert {path: index.numel() for path, index in last.items()} == {p: round(0.04 * n) for p, n in sizes.items()}
    else:
        assert sum(index.numel() for index in last.values()) == round(0.04 * sum(sizes.values()))
        assert len({index.numel() / sizes[path] for path, index in last.items()}) > 2, "the layers differ"


def test_a_target_density_that_too_few_signs_survive_is_refused():
    model = attach(host(), config(), seed=0)
    for layer in sparse_layers(model).values():
        layer.sparse_delta_values["default"].weight.data.neg_()
    with pytest.raises(ValueError, match=r"to leave 51 entries of .*query.* only 0 kept their sign: lower training.lr"):
        method(target_density=0.04).prune(sparse_layers(model), 1)


def test_gates_may_go_on(tmp_path):
    watched = Watched(trainer(tmp_path))
    method(n_prunings=1, rewind_gate=False).fit(host(), watched)
    assert watched.begun["round-1"].gates == watched.ended["round-0"].gates


@pytest.mark.parametrize("phase", ["round-0", "round-1", "round-2"])
def test_a_run_killed_in_any_round_ends_as_an_uninterrupted_one(run, tmp_path, phase):
    settings = {"weight_decay": 1.0, "lr": 4e-2}
    with pytest.raises(Death):
        method().fit(host(), Watched(trainer(tmp_path, **settings), dies_in=(phase, 2)))
    torch.rand(13)
    model = method().fit(host(), Watched(trainer(tmp_path, **settings)))
    method().save(model, tmp_path / "resumed")
    method().save(run.model, tmp_path / "whole")
    for name in ("adapter_model.safetensors", "adapter_config.json", "ticket.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert _steps(tmp_path) == _steps(run.folder)


def _steps(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": config(gate=False)}, "gate=true"),
        ({"config": config(delta_init="zeros")}, "delta_init=kaiming or normal"),
        ({"config": config(support="random", density=0.1)}, "support=full"),
        ({"rank_scope": "layer"}, "rank_scope must be per_layer or global"),
        ({"keep_of_stable": 0.0}, "keep_of_stable is a share"),
        ({"target_density": 1.5}, "target_density is a share"),
        ({"n_prunings": -1}, "n_prunings must be 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(method(), **changes)
