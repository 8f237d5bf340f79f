"""The masked LoRA kernels on their own: against dense matrices, what they keep for backward, dtypes."""

import pytest
import torch
from tests.adapters.masked_reference import ELEMENT, ROW_COL, dense, gradients, picked
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tombola.adapters.ops import Kept, masked_additive, masked_fused

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
ways = pytest.mark.parametrize("way", ["additive", "fused"])
kinds = pytest.mark.parametrize("kind", KINDS)


class Layer(nn.Module):
    """A frozen layer and one delta of scale 1.5."""

    def __init__(
        self, kind: str, dtype: torch.dtype = torch.float32, way: str = "fused", base: torch.dtype | None = None
    ):
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.weight = nn.Parameter(torch.randn(OUT, IN).to(base or dtype), requires_grad=False)
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
        if self.way == "fused":
            return masked_fused(x, self.weight, None, self.a, self.b, *self.kept, 1.5)
        return F.linear(x, self.weight) + masked_additive(x, self.a, self.b, *self.kept, 1.5)

    def factors(self) -> tuple[Tensor, Tensor]:
        shapes = ((R, IN), (OUT, R))
        parts = zip((self.a, self.b), self.places, shapes, self.how, strict=True)
        return tuple(dense(one.detach(), *rest) for one, *rest in parts)

    def gradients(self) -> list[Tensor]:
        found = [parameter.grad.clone() for parameter in (self.a, self.b)]
        self.zero_grad()
        return found


@pytest.mark.parametrize("batch", [(7,), (2, 5), ()])
@ways
@kinds
def test_output_and_gradients_are_those_of_the_dense_delta(kind, way, batch):
    layer = Layer(kind, torch.float64, way)
    x = torch.randn(*batch, IN, dtype=torch.float64, requires_grad=True)
    a, b = layer.factors()
    y = layer(x)
    torch.testing.assert_close(y, x @ (layer.weight + 1.5 * b @ a).T, **CLOSE)
    grad = torch.randn(y.shape, dtype=torch.float64)
    y.backward(grad)
    for_x, for_a, for_b = gradients(x.detach().view(-1, IN), grad.view(-1, OUT), a, b, 1.5)
    torch.testing.assert_close(x.grad.view(-1, IN), for_x + grad.view(-1, OUT) @ layer.weight, **CLOSE)
    assert layer.weight.grad is None
    for found, whole, places, how in zip((layer.a, layer.b), (for_a, for_b), layer.places, layer.how, strict=True):
        if places:
            torch.testing.assert_close(found.grad, picked(whole, places, how), **CLOSE)
        assert found.grad.shape == found.shape


@ways
@kinds
def test_the_gradients_pass_gradcheck(kind, way):
    layer = Layer(kind, torch.float64, way)
    x = torch.randn(5, IN, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if way == "additive":
            return masked_additive(x, a, b, *layer.kept, 1.5)
        return masked_fused(x, layer.weight, None, a, b, *layer.kept, 1.5)

    assert torch.autograd.gradcheck(run, (x, layer.a, layer.b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@ways
@kinds
def test_backward_keeps_the_input_and_nothing_else(kind, way, dtype):
    layer, kept = Layer(kind, way=way, base=dtype), {}
    known = {one.untyped_storage().data_ptr() for one in (layer.a, layer.b, layer.weight)}
    known |= {kept.places.untyped_storage().data_ptr() for kept in layer.kept if kept.places is not None}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(2, 7, IN, dtype=dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer(x)
    assert kept == {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()}
    node = next(n for n in (y.grad_fn, *(after for after, _ in y.grad_fn.next_functions)) if hasattr(n, "rest"))
    assert not [value for value in vars(node).values() if isinstance(value, Tensor)]


@ways
@kinds
def test_two_forwards_before_their_backwards_are_exact(kind, way):
    layer = Layer(kind, torch.float64, way)
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
@ways
@kinds
def test_checkpointing_changes_no_gradient(kind, way, reentrant):
    layer = Layer(kind, way=way)
    x = torch.randn(7, IN, requires_grad=True)
    layer(layer(x).repeat(1, 2)[:, :IN]).square().sum().backward()
    expected, for_x, x.grad = layer.gradients(), x.grad, None
    inner = checkpoint(layer, x, use_reentrant=reentrant)
    checkpoint(layer, inner.repeat(1, 2)[:, :IN], use_reentrant=reentrant).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(layer.gradients(), expected, strict=True))
    assert torch.equal(x.grad, for_x)


@kinds
def test_autocast_gives_its_dtype_and_float32_gradients(kind):
    layer = Layer(kind, way="additive")
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
@ways
def test_gradients_have_each_one_s_own_dtype_whatever_the_base_s(dtype, x_dtype, way):
    layer = Layer("row_col", dtype, way, base=x_dtype)
    x = torch.randn(7, IN).to(x_dtype).requires_grad_()
    y = layer(x)
    assert y.dtype == (x_dtype if way == "fused" else torch.promote_types(x_dtype, dtype))
    y.float().square().sum().backward()
    assert layer.a.grad.dtype == layer.b.grad.dtype == dtype
    assert x.grad.dtype == x_dtype


def test_added_a_bfloat16_input_is_widened_and_not_the_factors_rounded():
    layer = Layer("row_col")
    x = torch.randn(7, IN).bfloat16()
    found = masked_additive(x, layer.a, layer.b, *layer.kept, 1.5)
    assert torch.equal(found, masked_additive(x.float(), layer.a, layer.b, *layer.kept, 1.5))


@kinds
def test_in_bfloat16_both_ways_are_as_near_to_the_exact_as_each_other(kind):
    distances = {}
    for way in ("additive", "fused"):
        layer = Layer(kind, torch.float32, way, base=torch.bfloat16)
        layer.b.data.mul_(0.1)  # a delta smaller than the weight, as training leaves it
        x = torch.randn(200, IN, generator=torch.Generator().manual_seed(3)).bfloat16().requires_grad_()
        y = layer(x).bfloat16()
        grad = torch.randn(200, OUT, generator=torch.Generator().manual_seed(4)).bfloat16()
        y.backward(grad)
        a, b = (factor.double() for factor in layer.factors())
        whole = layer.weight.double() + 1.5 * b @ a
        exact = (x.double() @ whole.T, grad.double() @ whole)
        distances[way] = [(one.double() - two).norm() for one, two in zip((y, x.grad), exact, strict=True)]
        _, for_a, _ = gradients(x.detach().double(), grad.double(), a, b, 1.5)
        if layer.places[0]:
            expected = picked(for_a, layer.places[0], layer.how[0]).float()
            torch.testing.assert_close(layer.a.grad, expected, rtol=1e-4, atol=1e-3)
    assert all(one < 1.5 * other for one, other in zip(distances["fused"], distances["additive"], strict=True))


def test_a_trained_bias_gets_its_gradient():
    layer, bias = Layer("row_col"), torch.randn(OUT, requires_grad=True)
    x = torch.randn(2, 7, IN)
    y = masked_fused(x, layer.weight, bias, layer.a, layer.b, *layer.kept, 1.5)
    torch.testing.assert_close(y, layer(x) + bias)
    y.sum().backward()
    assert torch.equal(bias.grad, torch.full((OUT,), 14.0))


@ways
def test_only_what_is_asked_for_gets_a_gradient(way):
    layer = Layer("row_col", way=way)
    layer.a.requires_grad_(False)
    layer(torch.randn(7, IN)).sum().backward()
    assert layer.a.grad is None
    assert layer.b.grad.abs().max() > 0


@ways
def test_compiling_changes_nothing(way):
    layer = Layer("row_col", way=way)
    x = torch.randn(7, IN)
    expected = layer(x)
    expected.sum().backward()
    gradients = layer.gradients()
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager")(x)
    compiled.sum().backward()
    assert torch.equal(compiled, expected)
    assert all(torch.equal(a, b) for a, b in zip(layer.gradients(), gradients, strict=True))
