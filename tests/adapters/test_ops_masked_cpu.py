"""The C of `masked_cpu.c` against torch's operations, and masked LoRA with and without it."""

import pytest
import torch
from torch import Tensor

from tombola.adapters.ops import Kept, compiled, masked_additive, masked_fused, spread, stored
from tombola.adapters.ops import masked_products as products
from tombola.adapters.ops.masked_cpu import masked_backward, masked_forward

pytestmark = pytest.mark.skipif(compiled.LIBRARY is None, reason="installed without a C compiler")
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[0])).to(dtype)


def some(of: int, kept: int) -> Tensor:
    return torch.randperm(of, generator=torch.Generator().manual_seed(kept))[:kept].sort().values.int()


def lines(ranks: int, inside: int, kept_a: int, outside: int, kept_b: int) -> products.Masked:
    columns, rows = Kept(some(inside, kept_a), (ranks, inside), 1), Kept(some(outside, kept_b), (outside, ranks), 0)
    return products.Masked(random(ranks, kept_a), random(kept_b, ranks), columns, rows, 0.75, torch.float32)


@TYPES
@pytest.mark.parametrize("tokens", [1, 7, 8, 130, 300])
@pytest.mark.parametrize(
    ("inside", "kept_a", "outside", "kept_b"), [(48, 20, 40, 17), (33, 33, 130, 130), (100, 9, 7, 0), (16, 0, 5, 1)]
)
@pytest.mark.parametrize("ranks", [1, 16, 34, 50])
def test_products_are_those_of_the_whole_factors(ranks, inside, kept_a, outside, kept_b, tokens, dtype):
    given = lines(ranks, inside, kept_a, outside, kept_b)
    x, grad = random(tokens, inside, dtype=dtype), random(tokens, outside, dtype=dtype)
    inner, whole_b = masked_forward(x, given)
    through_b, whole_a, for_a, for_b = masked_backward(x, grad, given)
    a, b = spread(given.a, given.kept_a), spread(given.b, given.kept_b)
    assert torch.equal(whole_a, a)
    assert torch.equal(whole_b, b)
    a, b, x, grad = (one.double() for one in (a, b, x, grad))
    expected = (
        x @ a.t(),
        0.75 * grad @ b,
        0.75 * stored((grad @ b).t() @ x, given.kept_a),
        0.75 * stored(grad.t() @ (x @ a.t()), given.kept_b),
    )
    for ours, wanted in zip((inner, through_b, for_a, for_b), expected, strict=True):
        assert ours.dtype == torch.float32
        largest = wanted.abs().max().item() if wanted.numel() else 0.0
        torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=1e-5 * largest)


@TYPES
def test_the_bits_are_the_same_for_any_number_of_threads(dtype):
    given, x, grad = lines(20, 90, 41, 70, 33), random(301, 90, dtype=dtype), random(301, 70, dtype=dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results = (*masked_forward(x, given), *masked_backward(x, grad, given))
            found.append(torch.cat([one.reshape(-1) for one in results]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_matrices_that_lie_otherwise_are_read_right():
    given, x, grad = lines(3, 60, 11, 50, 20), random(60, 40).t(), random(50, 40).t()
    turned = given._replace(a=given.a.t().contiguous().t(), b=given.b.t().contiguous().t())
    assert not any(one.is_contiguous() for one in (x, grad, turned.a, turned.b))
    for ours, theirs in (
        (masked_forward(x, turned), masked_forward(x.contiguous(), given)),
        (masked_backward(x, grad, turned), masked_backward(x.contiguous(), grad.contiguous(), given)),
    ):
        assert all(map(torch.equal, ours, theirs))


@TYPES
@pytest.mark.parametrize("fused", [True, False])
def test_masked_lora_gives_the_same_with_and_without_compiled_code(fused, dtype, monkeypatch):
    results, called = [], []
    for name in ("masked_forward", "masked_backward"):
        real = getattr(products, name)
        monkeypatch.setattr(products, name, lambda *given, real=real: (called.append(real.__name__), real(*given))[1])
    for library in (compiled.LIBRARY, None):
        monkeypatch.setattr(compiled, "LIBRARY", library)
        kept_a, kept_b = Kept(some(40, 17), (4, 40), 1), Kept(some(48, 25), (48, 4), 0)
        x, weight = random(3, 50, 40, dtype=dtype).requires_grad_(), random(48, 40, dtype=dtype)
        a, b = random(4, 17).requires_grad_(), random(25, 4).requires_grad_()
        if fused:
            y = masked_fused(x, weight, None, a, b, kept_a, kept_b, 0.5)
        else:
            y = masked_additive(x, a, b, kept_a, kept_b, 0.5)
        y.backward(random(3, 50, 48, dtype=dtype).to(y.dtype))
        results.append((y, x.grad, a.grad, b.grad))
    assert called == ["masked_forward", "masked_backward"], "and nothing without a library"
    for ours, theirs in zip(*results, strict=True):
        tolerance = {} if dtype == torch.float32 or ours.dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
        torch.testing.assert_close(ours, theirs, rtol=tolerance.get("rtol", 1e-4), atol=tolerance.get("atol", 1e-4))


def test_single_entries_whole_factors_and_other_types_go_through_torch():
    lines, entries, every = Kept(some(40, 17), (4, 40), 1), Kept(some(160, 17), (4, 40), None), Kept(None, (4, 40), 1)
    b = Kept(some(48, 25), (48, 4), 0)

    def in_compiled_code(kept_a: Kept, dtype: torch.dtype, x: Tensor) -> bool:
        stored = random(17, dtype=dtype)
        return products.Masked(stored, stored, kept_a, b, 1.0, dtype)._in_compiled_code(x)

    x = random(2, 40)
    assert in_compiled_code(lines, torch.float32, x)
    assert not in_compiled_code(entries, torch.float32, x)
    assert not in_compiled_code(every, torch.float32, x)
    assert not in_compiled_code(lines, torch.bfloat16, x), "products inside autocast are in its type"
    assert not in_compiled_code(lines, torch.float32, x.double())
