"""BoLA's forward and gradients against the dense reference, in float64."""

import pytest
import torch
from tests.adapters.bola_reference import dense_delta, dense_forward, dense_gradients
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tombola.adapters.ops import bola_additive, bola_borrowed, bola_delta, selected_blocks

MAGNITUDES = ["literal", "per_candidate", "constant"]
SHAPES = [(24, 24, 4, 3), (24, 36, 4, 3), (40, 12, 2, 5)]  # out, in, n, m
ALPHA = 4.0
EXACT = {"rtol": 0.0, "atol": 1e-10}


def make(shape: tuple[int, int, int, int], k: int = 6) -> dict[str, Tensor]:
    """A layer and an adapter with two forced duplicates: candidates 0, 1 and 4 share a cell, so do 2 and 3."""
    out, in_, n, m = shape
    generator = torch.Generator().manual_seed(out + in_)
    draw = lambda *size: torch.randn(*size, dtype=torch.float64, generator=generator)  # noqa: E731
    scores = draw(k, n, m)
    scores[1], scores[3] = scores[0] + 0.01 * draw(n, m), scores[2] * 1.5
    scores[4] = scores[0]
    return {
        "weight": draw(out, in_),
        "bias": draw(out),
        "scores": scores.requires_grad_(),
        "values": draw(k, out // m, in_ // n).requires_grad_(),
    }


def additive(x, weight, bias, scores, values, alpha, magnitude):
    return F.linear(x, weight, bias) + bola_additive(x, scores, values, alpha, magnitude)


WAYS = {"borrowed": bola_borrowed, "additive": additive}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("way", WAYS)
def test_forward_and_all_gradients_are_the_dense_ones(way, magnitude, shape):
    layer = make(shape)
    assert len(selected_blocks(layer["scores"]).unique()) <= 3, "the duplicates were not forced"
    x = torch.randn(11, shape[1], dtype=torch.float64, requires_grad=True)
    grad = torch.randn(11, shape[0], dtype=torch.float64)
    arguments = layer["scores"], layer["values"], ALPHA, magnitude
    y = WAYS[way](x, layer["weight"], layer["bias"], *arguments)
    torch.testing.assert_close(y, dense_forward(x, layer["weight"], layer["bias"], *arguments), **EXACT)
    y.backward(grad)
    with torch.no_grad():
        expected = dense_gradients(x, grad, layer["weight"], *arguments)
    for name, found, right in zip(
        ("x", "scores", "values"), (x, layer["scores"], layer["values"]), expected, strict=True
    ):
        torch.testing.assert_close(found.grad, right, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("way", WAYS)
def test_two_micro_batches_accumulate(way, magnitude):
    layer = make(SHAPES[1])
    arguments = layer["scores"], layer["values"], ALPHA, magnitude
    total = [0.0, 0.0]
    for rows in (7, 4):
        x, grad = torch.randn(rows, 36, dtype=torch.float64), torch.randn(rows, 24, dtype=torch.float64)
        WAYS[way](x, layer["weight"], None, *arguments).backward(grad)
        with torch.no_grad():
            parts = dense_gradients(x, grad, layer["weight"], *arguments)[1:]
        total = [old + new for old, new in zip(total, parts, strict=True)]
    torch.testing.assert_close(layer["scores"].grad, total[0], **EXACT)
    torch.testing.assert_close(layer["values"].grad, total[1], **EXACT)


@pytest.mark.parametrize("way", WAYS)
def test_inputs_of_any_rank_that_are_not_contiguous(way):
    layer = make(SHAPES[1])
    wide = torch.randn(36, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    x = wide.permute(2, 3, 1, 0)[:, ::2]
    assert not x.is_contiguous()
    grad = torch.randn(24, 2, 3, 3, dtype=torch.float64).permute(1, 2, 3, 0)
    y = WAYS[way](x, layer["weight"], None, layer["scores"], layer["values"], ALPHA, "literal")
    assert y.shape == (2, 3, 3, 24)
    for_x, for_scores, for_values = torch.autograd.grad(y, (x, layer["scores"], layer["values"]), grad)
    flat_x, flat_grad = x.detach().reshape(-1, 36), grad.reshape(-1, 24)
    with torch.no_grad():
        expected = dense_gradients(
            flat_x, flat_grad, layer["weight"], layer["scores"], layer["values"], ALPHA, "literal"
        )
    torch.testing.assert_close(for_x.reshape(-1, 36), expected[0], **EXACT)
    torch.testing.assert_close(for_scores, expected[1], **EXACT)
    torch.testing.assert_close(for_values, expected[2], **EXACT)


@pytest.mark.parametrize("way", WAYS)
def test_a_broadcast_gradient_as_sum_gives_it(way):
    layer = make(SHAPES[1])
    x = torch.randn(2, 5, 36, dtype=torch.float64)
    WAYS[way](x, layer["weight"], None, layer["scores"], layer["values"], ALPHA, "literal").sum().backward()
    with torch.no_grad():
        ones = torch.ones(10, 24, dtype=torch.float64)
        expected = dense_gradients(
            x.view(10, 36), ones, layer["weight"], layer["scores"], layer["values"], ALPHA, "literal"
        )
    torch.testing.assert_close(layer["scores"].grad, expected[1], **EXACT)


@pytest.mark.parametrize("way", WAYS)
def test_one_row_without_a_batch_and_no_rows_at_all(way):
    layer = make(SHAPES[1])
    arguments = layer["scores"], layer["values"], ALPHA, "literal"
    row = torch.randn(36, dtype=torch.float64, requires_grad=True)
    y = WAYS[way](row, layer["weight"], None, *arguments)
    torch.testing.assert_close(y, dense_forward(row[None], layer["weight"], None, *arguments)[0], **EXACT)
    y.sum().backward()
    assert row.grad.shape == (36,)
    layer["scores"].grad = None
    none = WAYS[way](torch.zeros(2, 0, 36, dtype=torch.float64), layer["weight"], None, *arguments)
    none.sum().backward()
    assert none.shape == (2, 0, 24)
    assert layer["scores"].grad.count_nonzero() == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_the_dense_delta_for_merging(magnitude, shape):
    layer = make(shape)
    delta = bola_delta(layer["scores"], layer["values"], ALPHA, magnitude)
    torch.testing.assert_close(delta, dense_delta(layer["scores"], layer["values"], ALPHA, magnitude), **EXACT)
    block = (shape[0] // shape[3]) * (shape[1] // shape[2])
    assert delta.count_nonzero() == len(selected_blocks(layer["scores"]).unique()) * block


@pytest.mark.parametrize("magnitude", ["literal", "per_candidate"])
def test_the_score_gradient_is_the_true_derivative_where_it_exists(magnitude):
    layer = make(SHAPES[1])
    x, grad = torch.randn(9, 36, dtype=torch.float64), torch.randn(9, 24, dtype=torch.float64)
    y = bola_borrowed(x, layer["weight"], None, layer["scores"], layer["values"], ALPHA, magnitude)
    (found,) = torch.autograd.grad(y, layer["scores"], grad)
    truth = x @ bola_delta(layer["scores"], layer["values"], ALPHA, magnitude).T
    (derivative,) = torch.autograd.grad(truth, layer["scores"], grad)
    own = torch.arange(6), selected_blocks(layer["scores"])
    torch.testing.assert_close(found.flatten(1)[own], derivative.flatten(1)[own], **EXACT)


def test_candidates_differ_in_gradient_only_per_candidate():
    layer = make(SHAPES[1])
    x = torch.randn(9, 36, dtype=torch.float64)
    same = {}
    for magnitude in MAGNITUDES:
        y = bola_borrowed(x, layer["weight"], None, layer["scores"], layer["values"], ALPHA, magnitude)
        (rows,) = torch.autograd.grad(y.square().sum(), layer["scores"])
        same[magnitude] = bool((rows == rows[0]).all())
    assert same == {"literal": True, "per_candidate": False, "constant": True}


@pytest.mark.parametrize("way", WAYS)
def test_one_block_that_is_the_whole_layer_is_full_fine_tuning(way):
    weight, x = torch.randn(6, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    scores = torch.randn(1, 1, 1, dtype=torch.float64)
    values = torch.randn(1, 6, 8, dtype=torch.float64, requires_grad=True)
    full = (weight + values.detach()[0]).requires_grad_()
    WAYS[way](x, weight, None, scores, values, 1.0, "constant").square().sum().backward()
    F.linear(x, full).square().sum().backward()
    torch.testing.assert_close(values.grad[0], full.grad, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", WAYS)
def test_output_is_bit_for_bit_the_base_layers_while_the_values_are_zero(way, dtype):
    layer = make(SHAPES[1])
    x, weight, bias = torch.randn(5, 36).to(dtype), layer["weight"].to(dtype), layer["bias"].to(dtype)
    y = WAYS[way](x, weight, bias, layer["scores"].float(), torch.zeros_like(layer["values"]).float(), ALPHA, "literal")
    assert y.dtype == dtype
    assert torch.equal(y, F.linear(x, weight, bias))


@pytest.mark.parametrize("way", WAYS)
def test_half_precision_gradients_are_the_dense_ones_to_rounding(way):
    layer = {name: tensor.detach().to(torch.bfloat16) for name, tensor in make(SHAPES[1]).items()}
    scores, values = layer["scores"].float().requires_grad_(), layer["values"].float().requires_grad_()
    x, grad = torch.randn(64, 36).bfloat16().requires_grad_(), torch.randn(64, 24).bfloat16()
    WAYS[way](x, layer["weight"], None, scores, values, ALPHA, "literal").backward(grad)
    with torch.no_grad():
        exact = (tensor.double() for tensor in (x, grad, layer["weight"], scores, values))
        expected = dense_gradients(*exact, ALPHA, "literal")
    assert (x.grad.dtype, scores.grad.dtype, values.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    for found, right in zip((x.grad, scores.grad, values.grad), expected, strict=True):
        assert (found.double() - right).abs().max() < 0.01 * right.abs().max()


@pytest.mark.parametrize("way", WAYS)
def test_frozen_parts_get_no_gradient(way):
    layer = make(SHAPES[1])
    layer["scores"].requires_grad_(False)
    x = torch.randn(5, 36, dtype=torch.float64)
    WAYS[way](
        x, layer["weight"], layer["bias"].requires_grad_(), layer["scores"], layer["values"], ALPHA, "literal"
    ).sum().backward()
    assert layer["scores"].grad is None
    assert layer["values"].grad is not None
    torch.testing.assert_close(layer["bias"].grad, torch.full_like(layer["bias"], 5.0))


class Largest(TorchDispatchMode):
    """Largest tensor that any operation made, in elements; views of what was there do not count."""

    def __init__(self, known: set[int]):
        super().__init__()
        self.known, self.elements = known, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in self.known:
                self.elements = max(self.elements, made.numel())
        return result


@pytest.mark.parametrize("way", WAYS)
def test_nothing_as_large_as_the_layer_is_ever_made(way):
    weight, x = torch.randn(96, 128), torch.randn(4, 128, requires_grad=True)
    scores, values = torch.randn(5, 8, 8, requires_grad=True), torch.randn(5, 12, 16, requires_grad=True)
    with Largest({weight.untyped_storage().data_ptr()}) as largest:
        WAYS[way](x, weight, None, scores, values, ALPHA, "literal").sum().backward()
    assert 0 < largest.elements <= 5 * 12 * 16


def test_an_unknown_magnitude_is_refused():
    layer = make(SHAPES[0])
    with pytest.raises(ValueError, match="magnitude is 'litteral'; it must be one of literal, per_candidate, constant"):
        bola_delta(layer["scores"], layer["values"], ALPHA, "litteral")
