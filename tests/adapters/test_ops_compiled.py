"""The C of `sparse_cpu.c` against torch's operations in float64, and the way without it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tombola.adapters.ops import Support, compiled, sparse_borrowed, sparse_cpu
from tombola.adapters.ops.sparse_cpu import compiled_gradients, compiled_pays, lend_tiles, restore_tiles, with_elements
from tombola.adapters.ops.sparse_gradients import gradients_at
from tombola.adapters.ops.sparse_support import take

ROOT = Path(__file__).resolve().parents[2]
needs_compiled = pytest.mark.skipif(compiled.LIBRARY is None, reason="installed without a C compiler")


def support(out: int, columns: int, block: int, density: float) -> Support:
    units = out * columns // block**2
    chosen = torch.randperm(units, generator=torch.Generator().manual_seed(1))[: round(density * units)]
    return Support(chosen.sort().values.int(), (out, columns), block)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[0])).to(dtype)


SHAPES = [
    (48, 80, 1),
    (5, 7, 1),
    (130, 33, 1),  # widths that fill no vector
    (48, 80, 16),
    (64, 32, 32),
    (64, 128, 64),
]


@needs_compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens", [1, 15, 128, 300])
@pytest.mark.parametrize(("out", "columns", "block"), SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_gradients_are_the_dense_products_entries(out, columns, block, density, tokens, dtype):
    chosen = support(out, columns, block, density)
    x, grad = random(tokens, columns, dtype=dtype), random(tokens, out, dtype=dtype)
    dense = grad.double().t() @ x.double()
    found = compiled_gradients(x, grad, chosen)
    assert found.dtype == torch.float32
    assert found.shape == chosen.values_shape()
    torch.testing.assert_close(found.double(), take(dense, chosen), rtol=1e-5, atol=1e-5 * tokens**0.5)


@needs_compiled
@pytest.mark.parametrize("block", [1, 16])
def test_gradients_have_the_same_bits_for_any_number_of_threads(block, threads):
    chosen, x, grad = support(96, 160, block, 0.4), random(200, 160), random(200, 96)
    found = []
    for number in (1, 2, 3, 7):
        threads(number)
        found.append(compiled_gradients(x, grad, chosen))
    assert all(torch.equal(found[0], other) for other in found[1:])


@needs_compiled
@pytest.mark.parametrize("block", [1, 16])
def test_operands_that_lie_otherwise_are_read_right(block):
    chosen, x, grad = support(48, 80, block, 0.3), random(80, 50).t(), random(50, 96)[:, ::2]
    assert not x.is_contiguous()
    torch.testing.assert_close(compiled_gradients(x, grad, chosen), take(grad.t() @ x, chosen), rtol=1e-4, atol=1e-4)


@needs_compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("block", [1, 16])
def test_the_sum_has_torchs_bits(block, dtype):
    chosen = support(48, 160, block, 0.5)
    weight, delta = random(48, 160, dtype=dtype), random(*chosen.values_shape())
    awkward = torch.tensor([float("nan"), float("inf"), 1e-42, 3e38, -0.0, 0.00390625, 1.00390625, 1e30])
    weight.view(-1)[:8], delta.view(-1)[:8] = awkward.to(dtype), awkward.flip(0)
    before, expected = weight.clone(), weight.clone()
    at = take(torch.arange(weight.numel()).view_as(weight), chosen).flatten()
    expected.view(-1)[at] = (take(weight, chosen).float() + delta).to(dtype).flatten()
    if block == 1:
        found = with_elements(weight, delta, chosen)
    else:
        saved = lend_tiles(weight, delta, chosen)
        found = weight.clone()
        restore_tiles(weight, saved, chosen)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert bits(weight).equal(bits(before))


@needs_compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("block", [1, 16])
def test_a_layer_gives_the_same_with_and_without_compiled_code(block, dtype, monkeypatch):
    results = []
    for library in (compiled.LIBRARY, None):
        monkeypatch.setattr(compiled, "LIBRARY", library)
        chosen = support(96, 80, block, 0.1)
        x, weight = random(3, 40, 80, dtype=dtype).requires_grad_(), random(96, 80, dtype=dtype)
        values, before = random(*chosen.values_shape()).requires_grad_(), weight.clone()
        y = sparse_borrowed(x, weight, None, values, None, chosen, 2.0)
        y.backward(random(3, 40, 96, dtype=dtype))
        assert torch.equal(weight, before)
        results.append((y, x.grad, values.grad))
    exact = dtype == torch.float32
    for ours, theirs in zip(*results, strict=True):
        # torch rounds the gradient's sums to bfloat16, compiled code does not
        tolerance = {"rtol": 1e-5, "atol": 1e-4} if exact else {"rtol": 1e-2, "atol": 0.1}
        torch.testing.assert_close(ours, theirs, **tolerance)


@needs_compiled
def test_the_weight_is_whole_again_after_a_product_that_fails():
    chosen = support(32, 32, 16, 1.0)
    weight, values = random(32, 32), random(*chosen.values_shape())
    before = weight.clone()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        sparse_borrowed(random(4, 31), weight, None, values, None, chosen, 1.0)
    assert torch.equal(weight, before)


@needs_compiled
def test_compiled_code_is_for_a_few_units_in_the_types_it_knows():
    few, many = support(512, 512, 1, 0.05), support(512, 512, 1, 0.6)
    x = torch.zeros(4, 512)
    assert compiled_pays(x, few)
    assert not compiled_pays(x, many), "a dense product is cheaper"
    assert compiled_pays(x, support(512, 512, 16, 0.8))
    assert not compiled_pays(x.bfloat16(), support(512, 512, 16, 0.8)), "dense products in bfloat16 are quicker"
    assert not compiled_pays(x, few._replace(index=None)), "a full support has every entry"
    for other in (x.double(), x.half(), x.to("meta")):
        assert not compiled_pays(other, few)
    for block in (2, 8, 128):
        assert not compiled_pays(x, support(512, 512, block, 0.05))


@needs_compiled
def test_a_layer_takes_compiled_code(monkeypatch):
    chosen, called = support(96, 80, 16, 0.1), []
    real = sparse_cpu._call

    def call(name: str, *tensors: Tensor, **others: Any) -> None:
        called.append(name)
        real(name, *tensors, **others)

    monkeypatch.setattr(sparse_cpu, "_call", call)
    values = random(*chosen.values_shape()).requires_grad_()
    sparse_borrowed(random(8, 80).requires_grad_(), random(96, 80), None, values, None, chosen, 1.0).sum().backward()
    assert called == ["lend_tiles", "restore_tiles", "lend_tiles", "restore_tiles", "tile_gradients"]
    gradients_at(random(8, 160), random(8, 160), support(160, 160, 1, 0.01))
    assert called[-1] == "element_gradients"


@pytest.mark.recipe
def test_without_a_compiler_the_build_goes_on(tmp_path):
    shutil.copytree(ROOT, tmp_path / "tree", ignore=shutil.ignore_patterns(".*", "results", "runs", "*.so", "build"))
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    environment = os.environ | {"CC": "no-such-compiler"}
    built = subprocess.run(command, cwd=tmp_path / "tree", env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert not list((tmp_path / "tree" / "src").rglob("*.so"))


def bits(numbers: Tensor) -> Tensor:
    return numbers.view(torch.int16 if numbers.itemsize == 2 else torch.int32)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
