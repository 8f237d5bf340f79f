"""A random mask through the real trainer against a dense masked loop."""

import pytest
import torch
from tests.methods.sparse_runs import TARGETS, Watched, double, host, reference, trainer

from tombola.adapters import SparseDeltaConfig, sparse_layers
from tombola.methods import RandomMask, random_mask
from tombola.methods.sparse import attach

GATE = 2.0**-20


def config(**changes):
    return SparseDeltaConfig(target_modules=TARGETS, **{"density": 0.1, "seed": 3, **changes})


GATED = {"gate": True, "gate_init": GATE, "delta_init": "kaiming"}


@pytest.mark.parametrize("fields", [{}, GATED], ids=["from zero", "as RIGSA's baseline"])
def test_it_is_dense_masked_weights(monkeypatch, tmp_path, fields):
    monkeypatch.setattr(random_mask, "attach", double(attach))
    watched = Watched(trainer(tmp_path, weight_decay=1.0))
    RandomMask(config(**fields)).fit(host(torch.float64), watched)
    begun, ended = watched.begun["train"], watched.ended["train"]
    masks = {path: begun.mask(path) for path in begun.values}
    plain = reference(list(masks), weight_decay=1.0)
    values, gates = plain.train(begun.values, masks, gate=GATE if fields else None)
    for path in masks:
        torch.testing.assert_close(ended.values[path], values[path], rtol=0, atol=1e-10)
        assert torch.equal(ended.values[path] * masks[path], ended.values[path]), "0 outside, whatever the weight decay"
        assert ended.values[path].any()
        if fields:
            torch.testing.assert_close(ended.gates[path], gates[path].view(1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("density", [0.0346, 0.1, 1.0])
def test_the_density_is_met_within_an_entry_in_each_layer(density):
    for layer in sparse_layers(attach(host(), config(density=density), seed=0)).values():
        assert 0 <= density * layer.all_units("default") - layer.support("default").numel() < 1


def test_the_mask_is_the_seeds_and_differs_between_layers():
    drawn = [
        [layer.support("default").tolist() for layer in sparse_layers(attach(host(), config(seed=s), seed=0)).values()]
        for s in (3, 3, 4)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({tuple(one) for one in drawn[0]}) == len(drawn[0])


def test_from_zero_the_first_answers_are_the_bases(tmp_path):
    ids = torch.arange(3, 13).view(1, 10)
    with torch.no_grad():
        assert torch.equal(attach(host(), config(), seed=0)(ids).logits, host().net(ids).logits)
    method = RandomMask(config())
    model = method.fit(host(), Watched(trainer(tmp_path)))
    method.save(model, tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(method.load(host(), tmp_path / "saved")(ids).logits, model(ids).logits)
        assert not torch.equal(model(ids).logits, host().net(ids).logits)


def test_a_full_support_is_no_mask():
    with pytest.raises(ValueError, match="A random mask needs support=random"):
        RandomMask(config(density=None, support="full"))
