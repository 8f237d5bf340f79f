"""The SparseDelta layer against the dense reference in float64, by every way its forward can take."""

import pytest
import torch
from tests.adapters.sparse_reference import dense, gradients, parameters
from tests.adapters.tiny_models import shake_sparse, sparse
from torch import Tensor, nn
from torch.nn import functional as F

from tombola.adapters import SparseDeltaLinear, sparse_layers
from tombola.adapters.ops import Support
from tombola.adapters.ops.sparse_tiles import tiles_pay

EXACT = {"rtol": 0.0, "atol": 1e-10}
SCALE = 1.7
SETTINGS = {
    "element": {"count": 90},
    "block": {"structure": "block", "block": 4, "count": 96},
    "full elements": {"support": "full"},
    "full blocks": {"support": "full", "structure": "block", "block": 4},
    "one element": {"count": 1},
    "nothing": {"count": {"0": 0}},
}
SHAPES = [(24, 24), (24, 36), (40, 12)]


def adapted(shape=(24, 36), way="borrowed", bias=True, **settings) -> SparseDeltaLinear:
    """A float64 layer with trained values."""
    out, columns = shape
    torch.manual_seed(out + columns)
    net = nn.Sequential(nn.Linear(columns, out, bias=bias)).double()
    model = sparse(net, target_modules=["0"], scale=SCALE, **settings).train()
    shake_sparse(model)
    (layer,) = sparse_layers(model).values()
    if way == "additive":
        layer.base_layer.register_forward_hook(lambda module, inputs, output: None)
    return layer


def content(layer: SparseDeltaLinear) -> tuple[Tensor, float, list[int], int]:
    """Values, gate, units and block of the layer's adapter, for the reference."""
    values, gate = parameters(layer)
    block = 1 if values.dim() == 1 else values.shape[1]
    return values.data, 1.0 if gate is None else gate.item(), layer.support("default").tolist(), block


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("way", ["borrowed", "additive"])
def test_forward_and_gradients_are_the_dense_ones_over_two_micro_batches(way, kind, shape, gate):
    layer = adapted(shape, way, gate=gate, **SETTINGS[kind])
    values, gate_weight = parameters(layer)
    before, bias = layer.base_layer.weight.detach().clone(), layer.base_layer.bias.detach()
    summed = [torch.zeros_like(values), torch.zeros((), dtype=torch.float64)]
    data, factor, units, block = content(layer)
    for seed in (1, 2):
        torch.manual_seed(seed)
        x = torch.randn(7, shape[1], dtype=torch.float64, requires_grad=True)
        grad = torch.randn(7, shape[0], dtype=torch.float64)
        out = layer(x)
        out.backward(grad)
        delta = SCALE * factor * dense(data, units, shape, block)
        torch.testing.assert_close(out, F.linear(x, before + delta, bias), **EXACT)
        for_x, *others = gradients(x.detach(), grad, before, data, factor, SCALE, units, block)
        torch.testing.assert_close(x.grad, for_x, **EXACT)
        summed = [total + part for total, part in zip(summed, others, strict=True)]
    torch.testing.assert_close(values.grad, summed[0], **EXACT)
    if gate:
        torch.testing.assert_close(gate_weight.grad, summed[1].view(1), **EXACT)
    assert torch.equal(layer.base_layer.weight, before)


@pytest.mark.parametrize("way", ["borrowed", "additive"])
@pytest.mark.parametrize(("shape", "block", "tiles"), [((96, 64), 16, 3), ((256, 256), 32, 20)])
def test_few_large_blocks_are_multiplied_tile_by_tile_and_give_the_dense_numbers(way, shape, block, tiles):
    layer = adapted(shape, way, structure="block", block=block, count=tiles * block**2)
    assert tiles_pay(Support(layer.support("default"), shape, block), torch.float32)
    x = torch.randn(2, 5, shape[1], dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 5, shape[0], dtype=torch.float64)
    out = layer(x)
    out.backward(grad)
    data, factor, units, _ = content(layer)
    weight = layer.base_layer.weight.detach()
    delta = SCALE * dense(data, units, shape, block)
    torch.testing.assert_close(out, F.linear(x, weight + delta, layer.base_layer.bias), **EXACT)
    flat = x.detach().flatten(0, 1), grad.flatten(0, 1)
    for_x, for_values, _ = gradients(*flat, weight, data, factor, SCALE, units, block)
    torch.testing.assert_close(x.grad.flatten(0, 1), for_x, **EXACT)
    torch.testing.assert_close(parameters(layer)[0].grad, for_values, **EXACT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("way", ["borrowed", "additive"])
def test_the_delta_is_the_dense_one_and_what_the_forward_applies(way, kind, bias):
    layer = adapted(way=way, bias=bias, **SETTINGS[kind])
    data, _, units, block = content(layer)
    values = dense(data, units, (24, 36), block)
    torch.testing.assert_close(layer.dense_values("default"), values, rtol=0, atol=0)
    torch.testing.assert_close(layer.get_delta_weight("default"), SCALE * values, **EXACT)
    x = torch.randn(5, 36, dtype=torch.float64)
    expected = F.linear(x, layer.base_layer.weight + SCALE * values, layer.base_layer.bias)
    torch.testing.assert_close(layer(x), expected, **EXACT)


@pytest.mark.parametrize("kind", ["element", "block", "full blocks"])
@pytest.mark.parametrize("way", ["borrowed", "additive"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 3, 4), (0,)])
def test_inputs_of_any_rank_and_not_contiguous(way, kind, batch):
    layer = adapted(way=way, **SETTINGS[kind])
    x = torch.randn(*batch, 72, dtype=torch.float64)[..., ::2]
    torch.testing.assert_close(layer(x), layer(x.clone()), **EXACT)
    if batch:
        turned = x.transpose(0, -2).contiguous().transpose(0, -2).requires_grad_()
        torch.testing.assert_close(layer(turned), layer(x), **EXACT)
        layer(turned).sum().backward()
        assert turned.grad.shape == x.shape
        assert parameters(layer)[0].grad.shape == parameters(layer)[0].shape


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_gate_of_zero_gives_the_base_output_bit_for_bit(kind):
    layer = adapted(gate=True, **SETTINGS[kind])
    layer.sparse_delta_gate["default"].weight.data.zero_()
    x = torch.randn(5, 36, dtype=torch.float64)
    assert torch.equal(layer(x), layer.base_layer(x))


def test_a_weight_that_is_not_contiguous_is_borrowed_from_a_copy():
    layer = adapted(**SETTINGS["element"])
    x = torch.randn(5, 36, dtype=torch.float64)
    expected = layer(x)
    weight = layer.base_layer.weight
    weight.data = weight.data.t().contiguous().t()
    torch.testing.assert_close(layer(x), expected, **EXACT)


@pytest.mark.parametrize("kind", ["element", "block", "full elements", "nothing"])
def test_nothing_outside_the_support_moves_whatever_the_optimizer_does(kind):
    layer = adapted(gate=True, **SETTINGS[kind]).float()
    weight = layer.base_layer.weight.clone()
    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], lr=0.1, weight_decay=1.0)
    before = layer.get_delta_weight("default")
    for _ in range(5):
        layer(torch.randn(9, 36)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    _, _, units, block = content(layer)
    inside = dense(torch.ones(len(units), *(() if block == 1 else (block, block))), units, (24, 36), block).bool()
    after = layer.get_delta_weight("default")
    assert not after[~inside].any()
    assert (after != before)[inside].all()
    assert torch.equal(layer.base_layer.weight, weight)
