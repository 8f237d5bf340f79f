"""The C of `columns_cpu.c` against torch's operations, and masked LoRA with and without it."""

import pytest
import torch
from torch import Tensor

from tombola.adapters.ops import Kept, compiled, masked_additive, masked_fused
from tombola.adapters.ops import masked_products as products
from tombola.adapters.ops.columns_cpu import times_factor, transposed_times

pytestmark = pytest.mark.skipif(compiled.LIBRARY is None, reason="installed without a C compiler")
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[0])).to(dtype)


def some(of: int, kept: int) -> Tensor:
    return torch.randperm(of, generator=torch.Generator().manual_seed(kept))[:kept].sort().values.int()


@TYPES
@pytest.mark.parametrize("tokens", [1, 7, 8, 130, 300])
@pytest.mark.parametrize(("width", "kept"), [(48, 20), (33, 33), (100, 9), (5, 1), (16, 0)])
@pytest.mark.parametrize("ranks", [1, 16, 34])
def test_products_are_those_of_the_gathered_columns(width, kept, ranks, tokens, dtype):
    matrix, columns = random(tokens, width, dtype=dtype), some(width, kept)
    factor, thin = random(kept, ranks), random(tokens, ranks)
    gathered = matrix.double()[:, columns.long()]
    close = {"rtol": 1e-5, "atol": 1e-5 * max(width, tokens) ** 0.5}
    found = times_factor(matrix, columns, factor)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), gathered @ factor.double(), **close)
    torch.testing.assert_close(transposed_times(matrix, columns, thin).double(), gathered.t() @ thin.double(), **close)


@TYPES
def test_the_bits_are_the_same_for_any_number_of_threads(dtype):
    matrix, columns, factor = random(301, 90, dtype=dtype), some(90, 41), random(41, 20)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            thin = times_factor(matrix, columns, factor)
            found.append(torch.cat([thin, transposed_times(matrix, columns, thin)]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_matrix_that_lies_otherwise_is_read_right():
    matrix, columns, factor = random(60, 40).t(), some(60, 11), random(3, 11).t()
    assert not matrix.is_contiguous()
    assert not factor.is_contiguous()
    torch.testing.assert_close(times_factor(matrix, columns, factor), matrix[:, columns.long()] @ factor)
    thin = random(40, 34)[:, :3]
    torch.testing.assert_close(transposed_times(matrix, columns, thin), matrix[:, columns.long()].t() @ thin)


@TYPES
@pytest.mark.parametrize("fused", [True, False])
def test_masked_lora_gives_the_same_with_and_without_compiled_code(fused, dtype, monkeypatch):
    results, called = [], []
    real = products.times_factor
    monkeypatch.setattr(products, "times_factor", lambda *given: (called.append(1), real(*given))[1])
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
    assert len(called) == 3, (
        "forward, its repetition in backward, and the way back through B; nothing without a library"
    )
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
