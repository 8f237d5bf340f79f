"""Sampled products: the chosen entries of a dense gradient, without the others."""

import warnings

import pytest
import torch

from tombola.adapters.ops import sparse_gradients as gradients
from tombola.adapters.ops.sparse_sampled import TOKENS, sampled_gradients, sampling_pays
from tombola.adapters.ops.sparse_support import Support

OUT, IN = 320, 256


def support(*entries: int, shape: tuple[int, int] = (OUT, IN), block: int = 1) -> Support:
    return Support(torch.tensor(entries, dtype=torch.int32), shape, block)


def drawn(count: int) -> Support:
    generator = torch.Generator().manual_seed(1)
    return support(*torch.randperm(OUT * IN, generator=generator)[:count].sort().values.tolist())


@pytest.mark.parametrize("tokens", [1, TOKENS, TOKENS + 1, 2 * TOKENS + 7])
@pytest.mark.parametrize("count", [1, 700])
def test_the_chosen_entries_are_those_of_the_dense_gradient(tokens, count):
    torch.manual_seed(0)
    x, grad = torch.randn(tokens, IN, dtype=torch.float64), torch.randn(tokens, OUT, dtype=torch.float64)
    chosen = drawn(count)
    expected = torch.stack([grad[:, n // IN] @ x[:, n % IN] for n in chosen.index.tolist()])
    torch.testing.assert_close(sampled_gradients(x, grad, chosen), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("entries", [(0,), (OUT * IN - 1,), (3, IN - 1, IN, 5 * IN + 2)])
def test_rows_without_a_chosen_entry_are_passed_over(entries):
    x, grad = torch.randn(5, IN, dtype=torch.float64), torch.randn(5, OUT, dtype=torch.float64)
    expected = (grad.t() @ x).flatten()[list(entries)]
    torch.testing.assert_close(sampled_gradients(x, grad, support(*entries)), expected, rtol=0, atol=1e-10)


def test_sampling_pays_for_few_entries_of_a_large_layer_in_float32():
    few, many, x = drawn(700), drawn(9000), torch.randn(2, IN)
    assert sampling_pays(x, few)
    assert sampling_pays(x.double(), few)
    assert not sampling_pays(x.bfloat16(), few), "torch has no sampled product in bfloat16"
    assert not sampling_pays(x, many)
    assert not sampling_pays(x, few._replace(index=None)), "a full support has every entry"
    assert not sampling_pays(x, support(0, shape=(64, 64))), "putting the operands in order costs more"
    assert not sampling_pays(x, support(0, 1, block=16)), "tiles have products of their own"


@pytest.mark.parametrize("gate", [None, 0.25])
def test_both_ways_give_a_layer_the_same_gradients(monkeypatch, gate):
    torch.manual_seed(0)
    x, grad = torch.randn(9, IN, dtype=torch.float64), torch.randn(9, OUT, dtype=torch.float64)
    chosen, values = drawn(700), torch.randn(700, dtype=torch.float64)
    factor = None if gate is None else torch.tensor([gate], dtype=torch.float64)

    def both() -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return gradients.sparse_gradients(x, grad, values, factor, 2.0, chosen, (True, gate is not None))

    sampled = both()
    monkeypatch.setattr(gradients, "sampling_pays", lambda *_: False)
    for one, other in zip(sampled, both(), strict=True):
        assert (one is None) == (other is None)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_it_says_nothing_of_torchs_beta():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sampled_gradients(torch.ones(3, IN), torch.ones(3, OUT), support(0, 7))
    assert found.tolist() == [3.0, 3.0]
