"""The partitioned low-rank product on its own: what it computes, what it keeps, in which dtypes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tombola.adapters.ops import Factors, Partition, joined_a, joined_b, partitioned_lora, scale_ranks_

OUT, IN, R, R_MINOR = 14, 9, 4, 2
ROWS = {"some": [0, 3, 4, 9, 13], "one": [6], "all": list(range(OUT)), "all but one": [*range(7), *range(8, OUT)]}


class Layer(nn.Module):
    """One adapted layer; `way` is how its delta meets the base layer's product."""

    def __init__(self, rows: str = "some", way: str = "joined", minor: bool = True, dtype: torch.dtype = torch.float32):
        super().__init__()
        torch.manual_seed(0)
        numbers, self.way = ROWS[rows], way
        self.weight = nn.Parameter(torch.randn(OUT, IN).to(dtype), requires_grad=False)
        sizes = [(R, IN), (len(numbers), R)]
        if minor and len(numbers) < OUT:
            sizes += [(R_MINOR, IN), (OUT - len(numbers), R_MINOR)]
        self.factors = nn.ParameterList([torch.randn(size) for size in sizes])
        others = [row for row in range(OUT) if row not in numbers]
        self.partition = Partition(*(torch.tensor(one, dtype=torch.int64) for one in (numbers, others)), (1.5, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "joined":
            return partitioned_lora(x, Factors(*self.factors), self.partition, self.weight)
        return F.linear(x, self.weight) + partitioned_lora(x, Factors(*self.factors), self.partition)

    def delta(self) -> Tensor:
        """Row by row, by the definition."""
        a, b, *minor = self.factors
        dominant = iter(b)
        others = iter(minor[1]) if minor else None
        lines = []
        for row in range(OUT):
            if row in self.partition.rows.tolist():
                lines.append(1.5 * next(dominant) @ a)
            else:
                lines.append(a.new_zeros(IN) if others is None else 0.5 * next(others) @ minor[0])
        return torch.stack(lines)

    def gradients(self) -> list[Tensor]:
        found = [parameter.grad.clone() for parameter in self.factors]
        self.zero_grad()
        return found


@pytest.mark.parametrize("minor", [True, False])
@pytest.mark.parametrize("way", ["joined", "added"])
@pytest.mark.parametrize("rows", ROWS)
def test_output_and_gradients_are_those_of_the_dense_delta(rows, way, minor):
    layer = Layer(rows, way, minor).double()
    x = torch.randn(2, 5, IN, dtype=torch.float64, requires_grad=True)
    weights = torch.arange(2 * 5 * OUT, dtype=torch.float64).view(2, 5, OUT).cos()
    expected = F.linear(x, layer.weight + layer.delta())
    (expected * weights).sum().backward()
    wanted, for_x, x.grad = layer.gradients(), x.grad, None
    found = layer(x)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(x.grad, for_x, rtol=0, atol=1e-10)
    for one, other in zip(layer.gradients(), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_rows_at_their_places_are_those_that_index_add_and_a_permutation_put_there():
    layer = Layer()
    a, b, minor_a, minor_b = layer.factors
    x = torch.randn(6, IN)
    groups = 1.5 * (x @ a.T @ b.T), 0.5 * (x @ minor_a.T @ minor_b.T)
    dominant, minor = layer.partition.rows.long(), layer.partition.minor_rows.long()
    added = torch.zeros(6, OUT).index_add(1, dominant, groups[0]).index_add(1, minor, groups[1])
    permuted = torch.cat(groups, 1)[:, torch.cat([dominant, minor]).argsort()]
    found = partitioned_lora(x, Factors(*layer.factors), layer.partition)
    torch.testing.assert_close(found, added)
    torch.testing.assert_close(found, permuted)


def test_the_joined_factors_make_the_delta():
    layer = Layer()
    factors = Factors(*layer.factors)
    joined = joined_b(factors, layer.partition)
    scaled = scale_ranks_(joined_a(factors), R, layer.partition.scales)
    torch.testing.assert_close(joined @ scaled, layer.delta())
    assert not joined[layer.partition.rows, R:].any()
    assert not joined[layer.partition.minor_rows, :R].any()


@pytest.mark.parametrize("way", ["joined", "added"])
@pytest.mark.parametrize("rows", ROWS)
def test_backward_keeps_the_input_and_r_numbers_a_token_and_nothing_else(rows, way):
    layer, kept = Layer(rows, way), {}
    known = {t.untyped_storage().data_ptr() for t in (layer.weight, *layer.factors, *layer.partition[:2])}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(7, IN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer(x)
    node = next(n for n in (y.grad_fn, *(after for after, _ in y.grad_fn.next_functions)) if hasattr(n, "rest"))
    assert not [value for value in vars(node).values() if isinstance(value, Tensor)]
    assert sum(kept.values()) == x.untyped_storage().nbytes() + 7 * R * 4


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_no_gradient(reentrant):
    layer = Layer()
    x = torch.randn(7, IN, requires_grad=True)
    layer(layer(x)[:, :IN]).square().sum().backward()
    expected, for_x, x.grad = layer.gradients(), x.grad, None
    inner = checkpoint(layer, x, use_reentrant=reentrant)
    checkpoint(layer, inner[:, :IN], use_reentrant=reentrant).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(layer.gradients(), expected, strict=True))
    assert torch.equal(x.grad, for_x)


@pytest.mark.parametrize("way", ["joined", "added"])
@pytest.mark.parametrize("rows", ["some", "all"])
def test_the_gradients_pass_gradcheck(rows, way):
    layer = Layer(rows, way).double()
    x = torch.randn(5, IN, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *factors: Tensor) -> Tensor:
        return partitioned_lora(x, Factors(*factors), layer.partition, layer.weight if way == "joined" else None)

    assert torch.autograd.gradcheck(run, (x, *layer.factors))


def test_frozen_factors_get_no_gradient_and_a_trained_bias_its_own():
    layer, bias = Layer().requires_grad_(False), torch.randn(OUT, requires_grad=True)
    x = torch.randn(2, 7, IN, requires_grad=True)
    partitioned_lora(x, Factors(*layer.factors), layer.partition, layer.weight, bias).sum().backward()
    assert torch.equal(bias.grad, torch.full((OUT,), 14.0))
    torch.testing.assert_close(x.grad, (layer.weight + layer.delta()).sum(0).expand(2, 7, IN))
    assert all(factor.grad is None for factor in layer.factors)


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", ["joined", "added"])
def test_autocast_gives_its_dtype_and_float32_gradients(way, base):
    layer = Layer(way=way, dtype=base)
    x = torch.randn(7, IN).to(base).requires_grad_()
    exact = F.linear(x.float(), layer.weight.float() + layer.delta())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad.dtype == base
    assert {factor.grad.dtype for factor in layer.factors} == {torch.float32}
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.3)


def test_added_to_a_16_bit_base_the_delta_s_product_is_in_float32():
    layer = Layer(way="added", dtype=torch.bfloat16)
    x = torch.randn(7, IN).bfloat16().requires_grad_()
    delta = partitioned_lora(x, Factors(*layer.factors), layer.partition)
    assert delta.dtype == torch.float32
    torch.testing.assert_close(delta, F.linear(x.float(), layer.delta()))


def test_in_bfloat16_both_ways_are_as_near_to_the_exact_as_each_other():
    """The joined way rounds the small factors before its products, the other its product: neither is the worse."""
    errors = {}
    for way in ("joined", "added"):
        layer = Layer(way=way, dtype=torch.bfloat16)
        for b in (layer.factors[1], layer.factors[3]):
            b.data.mul_(0.1)  # a delta smaller than the weight, as training leaves it
        x = torch.randn(200, IN, generator=torch.Generator().manual_seed(3)).bfloat16().requires_grad_()
        grad = torch.randn(200, OUT, generator=torch.Generator().manual_seed(4)).bfloat16()
        y = layer(x).bfloat16()
        y.backward(grad)
        whole = (layer.weight + layer.delta()).detach().double()
        exact, exact_x = x.detach().double() @ whole.T, grad.double() @ whole
        pairs = ((y, exact), (x.grad, exact_x))
        errors[way] = [float((one.detach().double() - other).norm() / other.norm()) for one, other in pairs]
        assert {factor.grad.dtype for factor in layer.factors} == {torch.float32}
        assert y.dtype == x.grad.dtype == torch.bfloat16
        leaves = [factor.detach().double().requires_grad_() for factor in layer.factors]
        partitioned_lora(x.detach().double(), Factors(*leaves), layer.partition).backward(grad.double())
        for factor, leaf in zip(layer.factors, leaves, strict=True):
            # 2^-9 of rounding in the gradient itself, and as much in each of what it is a product of
            assert (factor.grad - leaf.grad).norm() < 2**-7 * leaf.grad.norm()
    for joined, added in zip(errors["joined"], errors["added"], strict=True):
        assert joined < 1.2 * added < 0.01


def test_a_weight_of_another_dtype_is_refused_as_without_an_adapter():
    layer = Layer(dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="same dtype"):
        layer(torch.randn(7, IN))


def test_compiling_changes_nothing():
    layer = Layer()
    x = torch.randn(7, IN)
    expected = layer(x)
    expected.sum().backward()
    gradients = layer.gradients()
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager")(x)
    compiled.sum().backward()
    assert torch.equal(compiled, expected)
    assert all(torch.equal(a, b) for a, b in zip(layer.gradients(), gradients, strict=True))
