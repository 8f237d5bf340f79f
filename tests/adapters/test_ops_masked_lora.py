"""The masked LoRA kernel on its own: against dense matrices, what it keeps for backward, dtypes."""

import pytest
import torch
from tests.adapters.masked_reference import ELEMENT, ROW_COL, dense, gradients, picked
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tombola.adapters.ops import Kept, masked_lora

OUT, IN, R = 24, 36, 3
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
# What is kept of A and of B.
KINDS = {
    "row_col": (ROW_COL, 11, 7),
    "few": (ROW_COL, 2, 1),
    "all columns": (ROW_COL, IN, 7),
    "all rows": (ROW_COL, 11, OUT),
    "all": (ROW_COL, IN, OUT),
    "nothing": (ROW_COL, 0, 0),
    "element": (ELEMENT, 40, 31),
    "every element": (ELEMENT, IN * R, OUT * R),
    "no element": (ELEMENT, 0, 0),
}
DIMS = {"rows": 0, "columns": 1, "entries": None}


class Layer(nn.Module):
    """One delta of scale 1.5."""

    def __init__(self, kind: str, dtype: torch.dtype = torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.how, *counts = KINDS[kind]
        self.places = []
        self.kept = []
        weights = []
        for how, count, shape in zip(self.how, counts, ((R, IN), (OUT, R)), strict=True):
            size = {"rows": shape[0], "columns": shape[1], "entries": shape[0] * shape[1]}[how]
            places = torch.randperm(size)[:count].sort().values.int()
            stored = {"rows": (count, R), "columns": (R, count), "entries": (count,)}[how]
            self.places.append(places.tolist())
            self.kept.append(Kept(None if count == size else places, shape, DIMS[how]))
            weights.append(nn.Parameter(torch.randn(stored).to(dtype)))
        self.a, self.b = weights

    def forward(self, x: Tensor) -> Tensor:
        return masked_lora(x, self.a, self.b, *self.kept, 1.5)

    def factors(self) -> tuple[Tensor, Tensor]:
        shapes = ((R, IN), (OUT, R))
        parts = zip((self.a, self.b), self.places, shapes, self.how, strict=True)
        return tuple(dense(one.detach(), *rest) for one, *rest in parts)

    def gradients(self) -> list[Tensor]:
        found = [parameter.grad.clone() for parameter in (self.a, self.b)]
        self.zero_grad()
        return found


@pytest.mark.parametrize("batch", [(7,), (2, 5), ()])
@pytest.mark.parametrize("kind", KINDS)
def test_output_and_gradients_are_those_of_the_dense_delta(kind, batch):
    layer = Layer(kind, torch.float64)
    x = torch.randn(*batch, IN, dtype=torch.float64, requires_grad=True)
    a, b = layer.factors()
    y = layer(x)
    torch.testing.assert_close(y, x @ (1.5 * b @ a).T, **CLOSE)
    grad = torch.randn(y.shape, dtype=torch.float64)
    y.backward(grad)
    for_x, for_a, for_b = gradients(x.detach().view(-1, IN), grad.view(-1, OUT), a, b, 1.5)
    torch.testing.assert_close(x.grad.view(-1, IN), for_x, **CLOSE)
    for found, whole, places, how in zip((layer.a, layer.b), (for_a, for_b), layer.places, layer.how, strict=True):
        if places:
            torch.testing.assert_close(found.grad, picked(whole, places, how), **CLOSE)
        assert found.grad.shape == found.shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_pass_gradcheck(kind):
    layer = Layer(kind, torch.float64)
    x = torch.randn(5, IN, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, a, b: masked_lora(x, a, b, *layer.kept, 1.5), (x, layer.a, layer.b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_backward_keeps_the_input_and_nothing_else(kind, autocast, dtype):
    layer, kept = Layer(kind), {}
    known = {one.untyped_storage().data_ptr() for one in (layer.a, layer.b)}
    known |= {kept.places.untyped_storage().data_ptr() for kept in layer.kept if kept.places is not None}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(2, 7, IN, dtype=dtype, requires_grad=True)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        y = layer(x)
    assert kept == {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()}
    assert not [value for value in vars(y.grad_fn).values() if isinstance(value, Tensor)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_forwards_before_their_backwards_are_exact(kind):
    layer = Layer(kind, torch.float64)
    first, second = torch.randn(2, 7, IN, dtype=torch.float64)
    layer(first).square().sum().backward()
    layer(second).square().sum().backward()
    apart = layer.gradients()
    one, two = layer(first), layer(second)
    two.square().sum().backward()
    one.square().sum().backward()
    for a, b in zip(apart, layer.gradients(), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_changes_no_gradient(kind, reentrant):
    layer = Layer(kind)
    x = torch.randn(7, IN, requires_grad=True)
    layer(layer(x).repeat(1, 2)[:, :IN]).square().sum().backward()
    expected, for_x, x.grad = layer.gradients(), x.grad, None
    inner = checkpoint(layer, x, use_reentrant=reentrant)
    checkpoint(layer, inner.repeat(1, 2)[:, :IN], use_reentrant=reentrant).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(layer.gradients(), expected, strict=True))
    assert torch.equal(x.grad, for_x)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_its_dtype_and_float32_gradients(kind):
    layer = Layer(kind)
    x = torch.randn(7, IN, requires_grad=True)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad.dtype == layer.a.grad.dtype == layer.b.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.3)


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_products_are_in_the_factors_dtype_and_gradients_in_each_one_s_own(dtype, x_dtype):
    layer = Layer("row_col", dtype)
    x = torch.randn(7, IN).to(x_dtype).requires_grad_()
    y = layer(x)
    assert y.dtype == dtype
    y.float().square().sum().backward()
    assert layer.a.grad.dtype == layer.b.grad.dtype == dtype
    assert x.grad.dtype == x_dtype


def test_a_bfloat16_input_is_widened_and_not_the_factors_rounded():
    layer = Layer("row_col")
    x = torch.randn(7, IN).bfloat16()
    assert torch.equal(layer(x), layer(x.float()))


def test_only_what_is_asked_for_gets_a_gradient():
    layer = Layer("row_col")
    layer.a.requires_grad_(False)
    layer(torch.randn(7, IN)).sum().backward()
    assert layer.a.grad is None
    assert layer.b.grad.abs().max() > 0


def test_compiling_changes_nothing():
    layer = Layer("row_col")
    x = torch.randn(7, IN)
    expected = layer(x)
    expected.sum().backward()
    gradients = layer.gradients()
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager")(x)
    compiled.sum().backward()
    assert torch.equal(compiled, expected)
    assert all(torch.equal(a, b) for a, b in zip(layer.gradients(), gradients, strict=True))
