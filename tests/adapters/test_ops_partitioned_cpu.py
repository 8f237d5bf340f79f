"""The C of `partitioned_cpu.c` against torch's operations, and partitioned LoRA with and without it."""

import pytest
import torch
from torch import Tensor

from tombola.adapters.ops import Factors, Partition, compiled, joined_a, joined_b, partitioned_lora
from tombola.adapters.ops import partitioned_products as products

pytestmark = pytest.mark.skipif(compiled.LIBRARY is None, reason="installed without a C compiler")
SCALES = (1.5, 0.25)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def partitioned(inside: int, outside: int, dominant: int, r: int, r_minor: int) -> tuple[Factors, Partition]:
    order = torch.randperm(outside, generator=torch.Generator().manual_seed(dominant))
    rows, others = order[:dominant].sort().values, order[dominant:].sort().values
    minor = (random(r_minor, inside), random(len(others), r_minor)) if r_minor and len(others) else (None, None)
    return Factors(random(r, inside), random(dominant, r), *minor), Partition(rows, others, SCALES)


@pytest.mark.parametrize("tokens", [1, 7, 8, 130, 300])
@pytest.mark.parametrize(("inside", "outside", "dominant"), [(70, 130, 61), (64, 64, 1), (5, 9, 8), (200, 40, 40)])
@pytest.mark.parametrize(("r", "r_minor"), [(1, 1), (16, 2), (34, 0), (50, 17)])
def test_products_are_those_of_the_joined_factors(r, r_minor, inside, outside, dominant, tokens):
    factors, partition = partitioned(inside, outside, dominant, r, r_minor)
    x, grad = random(tokens, inside), random(tokens, outside)
    ours = products.Products(factors, partition, torch.float32)
    inner = ours.forward(x)
    found = ours.backward(x, grad, inner.kept)
    wide = Factors(*(None if one is None else one.double() for one in factors))
    theirs = products.Products(wide, partition, torch.float64)
    wanted = theirs.backward(x.double(), grad.double(), theirs.forward(x.double()).kept)
    same(inner.left @ inner.right, x.double() @ joined_a(wide).t() @ scaled(wide, partition).t())
    same(found.left, grad.double() @ scaled(wide, partition))
    assert torch.equal(found.right, joined_a(factors))
    for one, other in zip(found.factors[: 2 if factors.minor_a is None else 4], wanted.factors, strict=False):
        same(one, other)


def scaled(factors: Factors, partition: Partition) -> Tensor:
    both = joined_b(factors, partition).clone()
    r = len(factors.a)
    both[:, :r] *= partition.scales[0]
    both[:, r:] *= partition.scales[1]
    return both


def same(ours: Tensor, wanted: Tensor) -> None:
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


def test_the_bits_are_the_same_for_any_number_of_threads():
    factors, partition = partitioned(90, 150, 70, 20, 3)
    x, grad = random(301, 90), random(301, 150)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            forward = products.partitioned_forward(x, factors, partition)
            through, whole_a, others = products.partitioned_backward(x, grad, forward[0], factors, partition)
            found.append(torch.cat([one.reshape(-1) for one in (*forward, through, whole_a, *others)]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("r_minor", [0, 3])
def test_the_layer_gives_the_same_with_and_without_compiled_code(r_minor, joined, monkeypatch):
    results, called = [], []
    for name in ("partitioned_forward", "partitioned_backward"):
        real = getattr(products, name)
        monkeypatch.setattr(products, name, lambda *given, real=real: (called.append(real.__name__), real(*given))[1])
    for library in (compiled.LIBRARY, None):
        monkeypatch.setattr(compiled, "LIBRARY", library)
        factors, partition = partitioned(40, 48, 25, 5, r_minor)
        leaves = [one.requires_grad_() for one in factors if one is not None]
        x, weight = random(40, 3, 50).permute(1, 2, 0).requires_grad_(), random(48, 40) if joined else None
        y = partitioned_lora(x, factors, partition, weight)
        x.retain_grad()
        y.backward(random(48, 3, 50).permute(1, 2, 0))
        results.append((y, x.grad, *(leaf.grad for leaf in leaves)))
    assert called == ["partitioned_forward", "partitioned_backward"], "and nothing without a library"
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_other_types_go_through_torch():
    factors, partition = partitioned(8, 12, 5, 2, 1)
    x = random(3, 8)

    def in_compiled_code(dtype: torch.dtype, x: Tensor) -> bool:
        return products.Products(factors, partition, dtype)._in_compiled_code(x)

    assert in_compiled_code(torch.float32, x)
    assert not in_compiled_code(torch.bfloat16, x), "products inside autocast are in its type"
    assert not in_compiled_code(torch.float32, x.bfloat16())
    assert not in_compiled_code(torch.float32, x.double())
