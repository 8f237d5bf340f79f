"""The sparse kernels on their own: the base weight is given back, little is kept for backward, dtypes are as said."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tombola.adapters.ops import Support, scattered, sparse_additive, sparse_borrowed
from tombola.adapters.ops.sparse_support import take
from tombola.adapters.ops.sparse_tiles import tile_gradients, tile_product, tile_product_back

OUT, IN = 24, 36
UNITS = {"element": (1, 100), "block": (4, 7), "full": (1, None), "nothing": (1, 0), "no block": (4, 0)}


class Layer(nn.Module):
    """One adapted layer with a gate."""

    def __init__(self, kind: str, dtype: torch.dtype = torch.float32, way: str = "borrowed"):
        super().__init__()
        torch.manual_seed(0)
        block, units = UNITS[kind]
        everything = OUT * IN // block**2
        index = None if units is None else torch.randperm(everything)[:units].sort().values.int()
        self.support, self.way = Support(index, (OUT, IN), block), way
        self.weight = nn.Parameter(torch.randn(OUT, IN).to(dtype), requires_grad=False)
        self.values, self.gate = nn.Parameter(torch.randn(self.support.values_shape())), nn.Parameter(torch.rand(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "additive":
            return F.linear(x, self.weight) + sparse_additive(x, self.values, self.gate, self.support, 2.0)
        return sparse_borrowed(x, self.weight, None, self.values, self.gate, self.support, 2.0)

    def gradients(self) -> list[Tensor]:
        found = [parameter.grad.clone() for parameter in (self.values, self.gate)]
        self.zero_grad()
        return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", UNITS)
def test_the_weight_is_the_same_bits_after_some_steps(kind, dtype):
    layer = Layer(kind, dtype)
    layer.weight[::3] = -0.0  # a sign that adding and subtracting nothing would lose
    before = layer.weight.clone()
    for _ in range(5):
        layer(torch.randn(7, IN).to(dtype).requires_grad_()).float().square().sum().backward()
    assert torch.equal(layer.weight.view(torch.uint8), before.view(torch.uint8))
    assert layer.values.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", ["element", "block"])
def test_the_weight_comes_back_when_the_product_fails(kind):
    layer = Layer(kind)
    before = layer.weight.clone()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.randn(7, IN + 1))
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("kind", ["element", "block"])
def test_the_weight_comes_back_when_backward_fails(kind, monkeypatch):
    layer = Layer(kind)
    before = layer.weight.clone()
    y = layer(torch.randn(7, IN, requires_grad=True)).sum()

    def fail(*_: object) -> None:
        raise MemoryError("as when a device runs full")

    monkeypatch.setattr(Tensor, "__matmul__", fail)
    with pytest.raises(MemoryError, match="as when a device runs full"):
        y.backward()
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("way", ["borrowed", "additive"])
@pytest.mark.parametrize("kind", UNITS)
def test_backward_keeps_the_input_and_nothing_else(kind, way):
    layer, kept = Layer(kind, way=way), {}
    known = {
        t.untyped_storage().data_ptr()
        for t in (layer.weight, layer.values, layer.gate, layer.support.index)
        if t is not None
    }

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(7, IN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer(x)
    node = next(n for n in (y.grad_fn, *(after for after, _ in y.grad_fn.next_functions)) if hasattr(n, "rest"))
    held = [value for value in vars(node).values() if isinstance(value, Tensor) and value is not layer.weight]
    assert not held
    assert sum(kept.values()) <= x.untyped_storage().nbytes()


@pytest.mark.parametrize("kind", UNITS)
def test_two_forwards_before_their_backwards_are_exact(kind):
    layer = Layer(kind).double()
    first, second = torch.randn(2, 7, IN, dtype=torch.float64)
    layer(first).square().sum().backward()
    layer(second).square().sum().backward()
    apart = layer.gradients()
    one, two = layer(first), layer(second)
    two.square().sum().backward()
    one.square().sum().backward()
    for a, b in zip(apart, layer.gradients(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", UNITS)
def test_checkpointing_changes_no_gradient(kind, reentrant):
    layer = Layer(kind)
    x = torch.randn(7, IN, requires_grad=True)
    layer(layer(x)[:, :IN].repeat(1, 2)[:, :IN]).square().sum().backward()
    expected, for_x, x.grad = layer.gradients(), x.grad, None
    inner = checkpoint(layer, x, use_reentrant=reentrant)
    checkpoint(layer, inner[:, :IN].repeat(1, 2)[:, :IN], use_reentrant=reentrant).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(layer.gradients(), expected, strict=True))
    assert torch.equal(x.grad, for_x)


@pytest.mark.parametrize("way", ["borrowed", "additive"])
@pytest.mark.parametrize("kind", UNITS)
def test_the_gradients_pass_gradcheck(kind, way):
    layer = Layer(kind, way=way).double()
    x = torch.randn(5, IN, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, values: Tensor, gate: Tensor) -> Tensor:
        if way == "additive":
            return sparse_additive(x, values, gate, layer.support, 2.0)
        return sparse_borrowed(x, layer.weight, None, values, gate, layer.support, 2.0)

    assert torch.autograd.gradcheck(run, (x, layer.values, layer.gate))


def test_a_trained_bias_gets_its_gradient():
    layer, bias = Layer("element"), torch.randn(OUT, requires_grad=True)
    x = torch.randn(2, 7, IN)
    sparse_borrowed(x, layer.weight, bias, layer.values, None, layer.support, 1.0).sum().backward()
    assert torch.equal(bias.grad, torch.full((OUT,), 14.0))


@pytest.mark.parametrize("way", ["borrowed", "additive"])
@pytest.mark.parametrize("kind", UNITS)
def test_autocast_gives_its_dtype_and_float32_gradients(kind, way):
    layer = Layer(kind, way=way)
    x = torch.randn(7, IN, requires_grad=True)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad.dtype == layer.values.grad.dtype == layer.gate.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.3)


@pytest.mark.parametrize("way", ["borrowed", "additive"])
@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("values", [torch.float32, torch.bfloat16, torch.float64])
def test_gradients_have_the_values_dtype_whatever_the_base_s(values, base, way):
    layer = Layer("element", base, way)
    layer.values.data = layer.values.data.to(values)
    y = layer(torch.randn(7, IN).to(base))
    assert y.dtype == base
    y.float().square().sum().backward()
    assert layer.values.grad.dtype == values
    assert layer.gate.grad.dtype == torch.float32


def test_in_bfloat16_weight_and_delta_are_rounded_once():
    layer = Layer("element", torch.bfloat16)
    delta = scattered(2.0 * layer.gate.detach() * layer.values.detach(), layer.support)
    whole = (layer.weight.float() + delta).bfloat16()
    x = torch.randn(7, IN).bfloat16()
    assert torch.equal(layer(x), F.linear(x, whole))


def test_tiles_in_several_groups_are_the_dense_products():
    support = Support(torch.randperm(64)[:37].sort().values.int(), (32, 32), 4)  # groups of 5
    x, grad = torch.randn(2, 9, 32, dtype=torch.float64)
    tiles = torch.randn(37, 4, 4, dtype=torch.float64)
    dense = scattered(tiles, support)
    torch.testing.assert_close(tile_gradients(x, grad, support), take(grad.T @ x, support))
    torch.testing.assert_close(tile_product(x, tiles, support), x @ dense.T)
    torch.testing.assert_close(tile_product_back(grad, tiles, support), grad @ dense)


def test_compiling_changes_nothing():
    layer = Layer("block")
    x = torch.randn(7, IN)
    expected = layer(x)
    expected.sum().backward()
    gradients = layer.gradients()
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager")(x)
    compiled.sum().backward()
    assert torch.equal(compiled, expected)
    assert all(torch.equal(a, b) for a, b in zip(layer.gradients(), gradients, strict=True))
