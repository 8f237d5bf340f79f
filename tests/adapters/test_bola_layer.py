"""The adapted layer against the dense reference in float64, by every way its forward can take."""

import pytest
import torch
from tests.adapters.bola_reference import dense_delta, dense_forward, dense_gradients
from tests.adapters.tiny_models import bola, layers
from torch import Tensor, nn
from torch.nn import functional as F

from tombola.adapters import BolaLinear

MAGNITUDES = ["literal", "per_candidate", "constant"]
SHAPES = [(24, 24, 4, 3), (24, 36, 4, 3), (40, 12, 2, 5)]  # out, in, n, m
ALPHA = 3.0
EXACT = {"rtol": 0.0, "atol": 1e-10}


def adapted(shape=(24, 36, 4, 3), magnitude="literal", way="borrowed", k=6, bias=True, **settings) -> BolaLinear:
    """A float64 layer with trained values, where candidates 0, 1 and 4 share a cell and 2 and 3 another."""
    out, columns, n, m = shape
    torch.manual_seed(out + columns)
    net = nn.Sequential(nn.Linear(columns, out, bias=bias)).double()
    settings = {"alpha": ALPHA, "k": k, "in_divs": n, "out_divs": m, "magnitude": magnitude, **settings}
    model = bola(net, target_modules=["0"], **settings).train()
    (layer,) = layers(model)
    scores, values = layer.bola_scores["default"].weight.data, layer.bola_values["default"].weight.data
    scores.normal_()
    if k >= 5:
        scores[1], scores[3], scores[4] = scores[0] + 0.01 * torch.rand(n, m), scores[2] * 1.5, scores[0]
    values.normal_()
    if way == "additive":
        layer.base_layer.register_forward_hook(lambda module, inputs, output: None)
    return layer


def parameters(layer: BolaLinear) -> tuple[Tensor, Tensor]:
    return layer.bola_scores["default"].weight, layer.bola_values["default"].weight


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["borrowed", "additive", "dropout"])
def test_forward_and_gradients_are_the_dense_ones_over_two_micro_batches(shape, magnitude, way):
    layer = adapted(shape, magnitude, way, dropout=0.25 if way == "dropout" else 0.0)
    scores, values = parameters(layer)
    weight, bias = layer.base_layer.weight.detach(), layer.base_layer.bias.detach()
    summed = [torch.zeros_like(scores), torch.zeros_like(values)]
    for seed in (1, 2):
        torch.manual_seed(seed)
        x = torch.randn(7, shape[1], dtype=torch.float64, requires_grad=True)
        grad = torch.randn(7, shape[0], dtype=torch.float64)
        state = torch.get_rng_state()
        out = layer(x)
        out.backward(grad)
        torch.set_rng_state(state)
        kept = F.dropout(torch.ones_like(x), 0.25) if way == "dropout" else torch.ones_like(x)
        delta = dense_delta(scores.data, values.data, ALPHA, magnitude)
        torch.testing.assert_close(out, F.linear(x, weight, bias) + (x * kept) @ delta.T, **EXACT)
        torch.testing.assert_close(x.grad, grad @ weight + (grad @ delta) * kept, **EXACT)
        _, *dense = dense_gradients((x * kept).detach(), grad, weight, scores.data, values.data, ALPHA, magnitude)
        summed = [total + part for total, part in zip(summed, dense, strict=True)]
    torch.testing.assert_close(scores.grad, summed[0], **EXACT)
    torch.testing.assert_close(values.grad, summed[1], **EXACT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("way", ["borrowed", "additive"])
def test_the_bias_is_added_once(way, bias):
    layer = adapted(way=way, bias=bias)
    x = torch.randn(5, 36, dtype=torch.float64)
    expected = dense_forward(
        x, layer.base_layer.weight, layer.base_layer.bias, *(p.data for p in parameters(layer)), ALPHA, "literal"
    )
    torch.testing.assert_close(layer(x), expected, **EXACT)


@pytest.mark.parametrize("way", ["borrowed", "additive"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 3, 4), (0,)])
def test_inputs_of_any_rank_and_not_contiguous(way, batch):
    layer = adapted(way=way)
    wide = torch.randn(*batch, 72, dtype=torch.float64)
    x = wide[..., ::2]
    torch.testing.assert_close(layer(x), layer(x.clone()), **EXACT)
    delta = layer.get_delta_weight("default")
    torch.testing.assert_close(layer(x), F.linear(x, layer.base_layer.weight + delta, layer.base_layer.bias), **EXACT)
    if batch:
        turned = x.transpose(0, -2).contiguous().transpose(0, -2)
        torch.testing.assert_close(layer(turned), layer(x), **EXACT)
        layer(turned).sum().backward()
        assert all(parameter.grad is not None for parameter in parameters(layer))


@pytest.mark.parametrize("way", ["borrowed", "additive"])
def test_single_precision_forward_is_that_of_the_materialised_weight(way):
    layer = adapted(way=way).float()
    x = torch.randn(9, 36)
    whole = layer.base_layer.weight + layer.get_delta_weight("default")
    torch.testing.assert_close(layer(x), F.linear(x, whole, layer.base_layer.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_the_delta_is_the_dense_one_and_zero_outside_the_drawn_cells(magnitude):
    layer = adapted(magnitude=magnitude)
    delta = layer.get_delta_weight("default")
    torch.testing.assert_close(delta, dense_delta(*(p.data for p in parameters(layer)), ALPHA, magnitude), **EXACT)
    filled = delta.unflatten(0, (3, -1)).unflatten(2, (4, -1)).abs().sum((1, 3)).T.flatten().nonzero().flatten()
    assert filled.tolist() == layer.selected_blocks("default").unique().tolist()
    assert layer.unique_blocks("default") == len(filled) <= 3


def test_unique_blocks_is_an_int_that_counts_a_shared_cell_once():
    layer = adapted(k=5)
    assert type(layer.unique_blocks("default")) is int
    assert layer.unique_blocks("default") == 2


@pytest.mark.parametrize(
    ("magnitude", "expected"),
    [
        ("constant", lambda s, v: ALPHA * (v[0] + v[1])),
        ("literal", lambda s, v: ALPHA * (s[0] + s[1]) * (v[0] + v[1])),
        ("per_candidate", lambda s, v: ALPHA * (s[0] * v[0] + s[1] * v[1])),
    ],
)
def test_two_candidates_on_one_cell_give_what_the_reading_says(magnitude, expected):
    layer = adapted((4, 6, 2, 2), magnitude, k=2)
    scores, values = parameters(layer)
    scores.data.copy_(torch.tensor([[[0.1, 0.2], [0.3, 0.9]], [[0.5, 0.0], [0.0, 0.7]]]))
    block = layer.get_delta_weight("default")[2:, 3:]  # cell (1, 1): second half of the columns, of the rows
    torch.testing.assert_close(block, expected([0.9, 0.7], values.data).double(), rtol=1e-6, atol=1e-6)


def test_under_the_literal_reading_all_candidates_get_one_score_gradient():
    layer = adapted()
    layer(torch.randn(5, 36, dtype=torch.float64)).square().sum().backward()
    gradient = layer.bola_scores["default"].weight.grad
    assert gradient.abs().min() > 0
    assert torch.equal(gradient, gradient[:1].expand_as(gradient))


def test_one_candidate_on_one_cell_is_full_fine_tuning():
    layer = adapted((4, 6, 1, 1), "constant", k=1, alpha=1.0)
    x = torch.randn(5, 6, dtype=torch.float64)
    layer(x).square().sum().backward()
    free = (layer.base_layer.weight + layer.get_delta_weight("default")).detach().requires_grad_()
    F.linear(x, free, layer.base_layer.bias).square().sum().backward()
    torch.testing.assert_close(layer.bola_values["default"].weight.grad[0], free.grad, **EXACT)


def test_the_drawn_blocks_alone_are_enough_to_deploy():
    layer = adapted()
    x = torch.randn(5, 36, dtype=torch.float64)
    expected = layer(x).detach()
    delta, cells = layer.get_delta_weight("default").detach(), layer.selected_blocks("default").unique()
    stored = [(int(cell), delta.unflatten(0, (3, -1)).unflatten(2, (4, -1))[cell % 3, :, cell // 3]) for cell in cells]
    rebuilt = layer.base_layer.weight.detach().clone()
    for cell, block in stored:
        rows, columns = block.shape
        top, left = (cell % 3) * rows, (cell // 3) * columns
        rebuilt[top : top + rows, left : left + columns] += block
    assert sum(block.numel() for _, block in stored) <= 6 * 24 * 36 // 12
    torch.testing.assert_close(F.linear(x, rebuilt, layer.base_layer.bias), expected, **EXACT)


@pytest.mark.parametrize("init_a", [5**0.5, 0.0])
def test_scores_start_kaiming_uniform_and_values_at_zero(init_a):
    model = bola(
        nn.Sequential(nn.Linear(64, 64)), target_modules=["0"], k=32, in_divs=8, out_divs=8, score_init_a=init_a
    )
    scores, values = parameters(layers(model)[0])
    bound = (6 / (1 + init_a**2) / 64) ** 0.5  # 1 / sqrt(n m) at sqrt(5)
    assert 0.98 * bound < scores.abs().max() <= bound
    assert abs(scores.mean()) < 0.05 * bound
    assert not values.any()


def test_a_seed_draws_the_same_scores_again():
    first, second = (parameters(layers(bola(nn.Sequential(nn.Linear(6, 4)), target_modules=["0"]))[0])[0] for _ in "12")
    assert torch.equal(first, second)


def test_an_unknown_adapter_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"no adapter 'other' on this layer; it has default"):
        adapted().unique_blocks("other")
