"""The borrowed weight is always given back, bit for bit, and nobody else notices."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tombola.adapters.ops import bola_additive, bola_borrowed

K, N, M, OUT, IN = 6, 4, 3, 24, 36


class Layer(nn.Module):
    """One adapted layer; candidates 0 and 1 share a cell."""

    def __init__(self, weight: Tensor, way: str = "borrowed"):
        super().__init__()
        self.weight, self.way = nn.Parameter(weight, requires_grad=False), way
        scores = torch.rand(K, N, M)
        scores[1] = scores[0]
        self.scores, self.values = nn.Parameter(scores), nn.Parameter(torch.randn(K, OUT // M, IN // N))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "additive":
            return F.linear(x, self.weight) + bola_additive(x, self.scores, self.values, 4.0, "literal")
        return bola_borrowed(x, self.weight, None, self.scores, self.values, 4.0, "literal")


@pytest.fixture
def layer() -> Layer:
    torch.manual_seed(0)
    return Layer(torch.randn(OUT, IN))


def gradients(layer: Layer) -> list[Tensor]:
    found = [parameter.grad.clone() for parameter in (layer.scores, layer.values)]
    layer.zero_grad()
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_weight_is_the_same_bits_after_some_steps(layer, dtype):
    layer.weight.data = layer.weight.data.to(dtype)
    before = layer.weight.clone()
    for _ in range(5):
        layer(torch.randn(7, IN).to(dtype).requires_grad_()).float().square().sum().backward()
    assert torch.equal(layer.weight, before)
    assert layer.values.grad.abs().max() > 0


def test_a_weight_that_is_not_contiguous_is_only_read(layer):
    x = torch.randn(7, IN)
    expected = layer(x)
    layer.weight.data = layer.weight.data.T.contiguous().T
    before = layer.weight.clone()
    torch.testing.assert_close(layer(x), expected)
    assert torch.equal(layer.weight, before)


def test_the_weight_comes_back_when_the_product_fails(layer):
    before = layer.weight.clone()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.randn(7, IN + 1))
    assert torch.equal(layer.weight, before)


def test_the_weight_comes_back_when_backward_fails(layer, monkeypatch):
    before = layer.weight.clone()
    y = layer(torch.randn(7, IN, requires_grad=True)).sum()

    def fail(*_: object) -> None:
        raise MemoryError("as when a device runs full")

    monkeypatch.setattr(Tensor, "__matmul__", fail)
    with pytest.raises(MemoryError, match="as when a device runs full"):
        y.backward()
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_no_bit(layer, reentrant):
    second = Layer(torch.randn(IN, IN)[:OUT])
    mix = torch.randn(OUT, IN)
    run = lambda x: second(F.silu(layer(x)) @ mix)  # noqa: E731
    before = layer.weight.clone(), second.weight.clone()
    x = torch.randn(7, IN, requires_grad=True)
    run(x).square().sum().backward()
    expected = [x.grad.clone(), *gradients(layer), *gradients(second)]
    x.grad = None
    checkpoint(run, x, use_reentrant=reentrant).square().sum().backward()
    found = [x.grad, *gradients(layer), *gradients(second)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(layer.weight, before[0])
    assert torch.equal(second.weight, before[1])


def test_a_single_checkpointed_layer_recomputes_before_it_borrows(layer):
    """Unpacking the saved input runs forward again inside backward: a weight lent by then would be lent twice."""
    x = torch.randn(7, IN, requires_grad=True)
    expected = torch.autograd.grad(layer(x).square().sum(), x)[0]
    before = layer.weight.clone()
    found = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), x)[0]
    assert torch.equal(found, expected)
    assert torch.equal(layer.weight, before)


def test_two_forwards_before_a_backward(layer):
    first, second = torch.randn(7, IN), torch.randn(3, IN)
    expected = []
    for x in (first, second):
        layer(x).square().sum().backward()
        expected.append(gradients(layer))
    (layer(first).square().sum() + layer(second).square().sum()).backward()
    for found, one, two in zip(gradients(layer), *expected, strict=True):
        torch.testing.assert_close(found, one + two)


def test_two_adapters_on_one_weight_in_one_graph(layer):
    other = Layer(layer.weight.data)
    other.weight = layer.weight
    x = torch.randn(7, IN, requires_grad=True)
    expected = [torch.autograd.grad(each(x).square().sum(), x)[0] for each in (layer, other)]
    found = torch.autograd.grad(layer(x).square().sum() + other(x).square().sum(), x)[0]
    torch.testing.assert_close(found, expected[0] + expected[1])


def test_a_tied_layer_that_saved_the_weight_for_its_own_backward(layer):
    """Writing through the weight itself would move its version counter, and this backward would be refused."""
    h = torch.randn(5, IN, requires_grad=True)
    tied = F.linear(h, layer.weight)
    layer(torch.randn(7, IN)).sum().backward()
    tied.sum().backward()
    torch.testing.assert_close(h.grad, torch.ones(5, OUT) @ layer.weight)


def test_only_the_input_is_kept_for_backward(layer):
    """Shared among the layers that read it, and a few bytes a pair of candidates; nothing hides on the node either."""
    kept: dict[int, int] = {}
    known = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(2, 50, IN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)
    on_node = [item for item in vars(y.grad_fn).values() if isinstance(item, Tensor)]
    assert all(item is layer.weight for item in on_node)
    choice = K * (3 * 8 + 4) + K * K * 4 + K * (OUT // M) * 8  # cells, factors, who shares a cell, where the rows are
    assert sum(size for where, size in kept.items() if where not in known) == x.nbytes + choice


@pytest.mark.parametrize("way", ["borrowed", "additive"])
def test_autocast_computes_in_its_dtype_and_sums_scores_in_theirs(layer, way):
    layer.way = way
    before = layer.weight.clone()
    x = torch.randn(40, IN, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        y.float().square().sum().backward()  # backward inside the region: its own products must not be cast either
    found = [x.grad, *gradients(layer)]
    x.grad = None
    layer(x).square().sum().backward()
    expected = [x.grad, *gradients(layer)]
    assert y.dtype == torch.bfloat16
    assert torch.equal(layer.weight, before)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.02 * float(other.abs().max()))


def test_autocast_leaves_float64_alone(layer):
    layer.double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(3, IN, dtype=torch.float64))
    assert y.dtype == torch.float64


@pytest.mark.parametrize("way", ["borrowed", "additive"])
def test_compiled_layer_has_the_same_bits(layer, way):
    layer.way = way
    x = torch.randn(7, IN)
    layer(x).square().sum().backward()
    expected = gradients(layer)
    torch.compile(layer, backend="eager")(x).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(gradients(layer), expected, strict=True))
