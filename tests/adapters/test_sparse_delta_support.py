"""Where a SparseDelta layer may be non-zero: drawing, moving, and the values that wait."""

import pytest
import torch
from tests.adapters.sparse_reference import dense, parameters
from tests.adapters.test_sparse_delta_layer import EXACT, SCALE, SETTINGS, adapted
from tests.adapters.tiny_models import batch, shake_sparse, sparse, tiny
from torch import nn
from torch.nn import functional as F

from tombola.adapters import awake, sparse_layers, values_parameter, write_counts


def supports(**settings: object) -> dict[str, list[int]]:
    return {
        path: layer.support("default").tolist()
        for path, layer in sparse_layers(sparse(tiny("llama"), **settings)).items()
    }


def test_a_seed_draws_the_same_support_again_and_every_layer_its_own():
    torch.manual_seed(1)
    one = supports(target_modules=["q_proj"])
    torch.manual_seed(2)
    assert supports(target_modules=["q_proj"]) == one
    assert supports(target_modules=["q_proj"], seed=1) != one
    first, second = one.values()
    assert first != second
    assert first == sorted(set(first))
    assert len(first) == 102  # floor(0.1 * 32 * 32)


def test_drawing_leaves_the_global_random_state_alone():
    base, state = tiny("llama"), torch.get_rng_state()
    sparse(base, delta_init="normal")
    assert torch.equal(torch.get_rng_state(), state)


def test_every_element_is_drawn_equally_often():
    drawn = torch.zeros(64)
    for seed in range(400):
        (layer,) = sparse_layers(
            sparse(nn.Sequential(nn.Linear(8, 8)), target_modules=["0"], count=16, seed=seed)
        ).values()
        drawn[layer.support("default")] += 1
    assert drawn.sum() == 400 * 16
    assert 60 < drawn.min() < 100 < drawn.max() < 140  # binomial: 100 with a standard deviation of 8.7


@pytest.mark.parametrize("kind", ["element", "block"])
@pytest.mark.parametrize(("init", "spread"), [("kaiming", 1 / 108**0.5), ("normal", 1 / 6)])
def test_values_start_as_drawn_for_the_full_support(init, spread, kind):
    tile = {k: v for k, v in SETTINGS[kind].items() if k != "count"}
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(36, 240))
    (part,) = sparse_layers(sparse(net, target_modules=["0"], delta_init=init, **SETTINGS[kind])).values()
    net = nn.Sequential(nn.Linear(36, 240))
    (full,) = sparse_layers(sparse(net, target_modules=["0"], delta_init=init, support="full", **tile)).values()
    start = full.start_values("default")
    assert torch.equal(parameters(full)[0], start)
    assert torch.equal(parameters(part)[0], start[part.support("default")])
    assert start.std() == pytest.approx(spread, rel=0.05)
    assert abs(start.mean()) < 0.05 * spread
    if init == "kaiming":
        assert 0.98 / 6 < start.abs().max() <= 1 / 6


def test_the_start_can_be_drawn_again_after_training():
    layer = adapted(support="full", delta_init="normal", gate=True)
    start = layer.start_values("default")
    shake_sparse(nn.Sequential(layer))
    assert torch.equal(layer.start_values("default"), start)
    assert start.dtype == torch.float32


@pytest.mark.parametrize("kind", ["element", "block", "full blocks", "nothing"])
def test_a_support_is_set_with_its_values(kind):
    layer = adapted(**SETTINGS[kind])
    old, block = parameters(layer)[0], 1 if kind in ("element", "nothing") else 4
    index = torch.tensor([0, 5, 17])
    values = torch.randn(3, *old.shape[1:], dtype=torch.float64)
    layer.set_support("default", index, values)
    new = parameters(layer)[0]
    assert new is not old
    assert new.requires_grad
    assert torch.equal(new, values)
    assert layer.support("default").tolist() == [0, 5, 17]
    assert layer.sparse_delta_index["default"].dtype == torch.int32
    x = torch.randn(5, 36, dtype=torch.float64)
    delta = SCALE * dense(values, [0, 5, 17], (24, 36), block)
    torch.testing.assert_close(layer(x), F.linear(x, layer.base_layer.weight + delta, layer.base_layer.bias), **EXACT)


def test_a_full_support_is_stored_without_an_index_however_it_came_about():
    layer = adapted(**SETTINGS["block"])
    everything = torch.randn(54, 4, 4, dtype=torch.float64)
    layer.set_support("default", torch.arange(54), everything)
    assert layer.sparse_delta_index["default"].numel() == 0
    assert torch.equal(layer.support("default"), torch.arange(54))
    assert layer.all_units("default") == 54
    assert layer.unit_numel("default") == 16


@pytest.mark.parametrize(
    "index",
    [[3, 3], [5, 3], [-1, 3], [3, 24 * 36], [[1, 2]], [0.0, 1.0]],
    ids=["twice", "descending", "negative", "beyond", "matrix", "float"],
)
def test_a_support_that_is_none_is_refused(index):
    layer = adapted(count=2)
    for change in (layer.put_index, lambda name, index: layer.set_support(name, index, torch.zeros(2))):
        with pytest.raises(ValueError, match=r"units of a support must be ascending, each once|is a vector of unit"):
            change("default", torch.tensor(index))


def test_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"values of the shape \(2,\) for a support that needs \(2, 4, 4\)"):
        adapted(**SETTINGS["block"]).set_support("default", torch.tensor([1, 2]), torch.zeros(2))


def test_an_index_is_moved_in_place():
    layer = adapted(count=3)
    values, index = parameters(layer)[0], layer.sparse_delta_index["default"]
    layer.put_index("default", torch.tensor([7, 8, 800]))
    assert parameters(layer)[0] is values
    assert layer.sparse_delta_index["default"] is index
    assert index.tolist() == [7, 8, 800]
    assert torch.equal(layer.dense_values("default").flatten()[[7, 8, 800]], values)
    with pytest.raises(ValueError, match=r"2 units for a support of 3: set_support changes their number"):
        layer.put_index("default", torch.tensor([7, 8]))


def test_the_support_of_a_merged_adapter_stays():
    layer = adapted(count=3)
    layer.merge()
    with pytest.raises(ValueError, match=r"is merged into its layer: unmerge before its support changes"):
        layer.put_index("default", torch.tensor([7, 8, 9]))


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("way", ["borrowed", "additive"])
@pytest.mark.parametrize("kind", ["element", "block", "nothing"])
def test_waiting_values_wait_and_are_awake_when_asked(kind, way, gate):
    layer = adapted(way=way, gate=gate, **SETTINGS[kind])
    model = nn.Sequential(layer)
    values, gate_weight = parameters(layer)
    block = 1 if values.dim() == 1 else 4
    factor = SCALE * (1.0 if gate_weight is None else gate_weight.item())
    first, units = values.detach().clone(), layer.support("default").tolist()
    with awake(model):  # nothing waits: as usual
        assert layer(torch.randn(5, 36, dtype=torch.float64)).requires_grad
    layer.begin_waiting("default")
    assert "sparse_delta_waiting.default" in layer.state_dict()
    others = torch.arange(len(units)) * 3
    layer.put_index("default", others)
    values.data.normal_()
    waiting = dense(first, units, (24, 36), block)
    everywhere = list(range(layer.all_units("default")))
    present = dense(values.detach(), others.tolist(), (24, 36), block)
    there = dense(torch.ones_like(values), others.tolist(), (24, 36), block).bool()
    expected = factor * torch.where(there, present, waiting)
    x = torch.randn(5, 36, dtype=torch.float64, requires_grad=True)
    with awake(model):
        out = layer(x)
        out.sum().backward()
    bias, weight = layer.base_layer.bias, layer.base_layer.weight
    torch.testing.assert_close(out, F.linear(x, weight + expected, bias), **EXACT)
    torch.testing.assert_close(x.grad, (weight + expected).sum(0).expand(5, -1), **EXACT)
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert torch.equal(dense(layer.waiting("default"), everywhere, (24, 36), block), waiting)
    torch.testing.assert_close(layer(x), F.linear(x, weight + factor * present, bias), **EXACT)
    layer.put_waiting("default", values)
    assert torch.equal(
        dense(layer.waiting("default"), everywhere, (24, 36), block), torch.where(there, present, waiting)
    )
    layer.end_waiting("default")
    assert not [key for key in layer.state_dict() if "waiting" in key]


def test_waiting_values_are_put_back_after_an_error():
    layer = adapted(count=3)
    layer.begin_waiting("default")
    parameters(layer)[0].data.normal_()
    before = layer.waiting("default").clone()
    with pytest.raises(RuntimeError, match="inside"), awake(nn.Sequential(layer)):
        raise RuntimeError("inside")
    assert torch.equal(layer.waiting("default"), before)
    assert layer(torch.randn(5, 36, dtype=torch.float64)).requires_grad


def test_waiting_values_that_are_not_there_are_an_error():
    with pytest.raises(ValueError, match=r"'default' has no waiting values on this layer: begin_waiting makes them"):
        adapted(count=3).waiting("default")


def test_layers_and_parameters_are_named_as_in_the_model():
    model = sparse(tiny("llama"), target_modules=["v_proj"])
    layers, parameters = sparse_layers(model), dict(model.named_parameters())
    assert list(layers) == [f"base_model.model.model.layers.{n}.self_attn.v_proj" for n in (0, 1)]
    for path, layer in layers.items():
        assert parameters[values_parameter(path)] is layer.sparse_delta_values["default"].weight


def test_counts_are_written_by_path_in_the_base_model():
    model = sparse(tiny("llama"), target_modules=["v_proj"], structure="block", block=8, density=0.5)
    first, second = sparse_layers(model).values()
    first.set_support("default", torch.tensor([1]), torch.zeros(1, 8, 8))
    second.set_support("default", torch.tensor([], dtype=torch.int64), torch.zeros(0, 8, 8))
    write_counts(model)
    config = model.peft_config["default"]
    assert config.count == {"model.layers.0.self_attn.v_proj": 64, "model.layers.1.self_attn.v_proj": 0}
    assert config.density is None
    model(**batch("llama")).loss.backward()
