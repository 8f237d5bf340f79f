"""Leverage scores, by hand and by their properties."""

import pytest
import torch

from tombola.tickets import leverage_scores


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(random(size, size, seed=seed)).Q


def test_scores_by_hand():
    """Squared spectrum 16, 9, 0: 16 of 25 are 64 %, so 0.9 takes two directions and 0.6 one."""
    weight = torch.tensor([[0.0, 4.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    rows, columns = leverage_scores(weight, 0.9)
    assert rows.tolist() == pytest.approx([1, 0, 1, 0])
    assert columns.tolist() == pytest.approx([1, 1, 0])
    rows, columns = leverage_scores(weight, 0.6)
    assert rows.tolist() == pytest.approx([1, 0, 0, 0])
    assert columns.tolist() == pytest.approx([0, 1, 0])


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7, 7)])
def test_scores_are_shares_that_sum_to_the_rank(shape):
    weight = random(*shape)
    spectrum = torch.linalg.eigvalsh(weight @ weight.T).flip(0)  # written apart: squares of the singular values
    for energy in (0.3, 0.9):
        k = next(k for k in range(1, 99) if spectrum[:k].sum() >= energy * spectrum.sum())
        for scores in leverage_scores(weight, energy):
            assert scores.min() >= 0
            assert scores.max() <= 1 + 1e-12
            assert float(scores.sum()) == pytest.approx(k, abs=1e-12)


def test_every_row_of_a_full_row_rank_counts_whole():
    rows, columns = leverage_scores(random(5, 9), 1.0)
    torch.testing.assert_close(rows, torch.ones(5, dtype=torch.float64), atol=1e-12, rtol=0)
    assert columns.max() < 1 - 1e-6


def test_turning_the_inputs_leaves_the_rows_and_turning_the_outputs_the_columns():
    weight = random(8, 12)
    rows, columns = leverage_scores(weight)
    torch.testing.assert_close(leverage_scores(weight @ orthogonal(12, 1)).rows, rows, atol=1e-12, rtol=0)
    torch.testing.assert_close(leverage_scores(orthogonal(8, 2) @ weight).columns, columns, atol=1e-12, rtol=0)
    assert (leverage_scores(weight @ orthogonal(12, 1)).columns - columns).abs().max() > 1e-3


@pytest.mark.parametrize("rank", [4, 24, 60])  # within a quarter of the spectrum, half of it, and neither
def test_the_randomised_one_is_the_exact_one_of_a_low_rank(rank):
    falling = torch.logspace(0, -0.1, rank, dtype=torch.float64)
    weight = orthogonal(64, 3)[:, :rank] * falling @ orthogonal(64, 4)[:rank]
    exact, random_one = leverage_scores(weight), leverage_scores(weight, large=64)
    for one, other in zip(exact, random_one, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=0)


def test_the_seed_is_all_that_decides():
    weight = random(64, 64).float()
    state = torch.get_rng_state()
    first = leverage_scores(weight, 0.3, large=64, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(first, leverage_scores(weight, 0.3, large=64, seed=1), strict=True))
    assert not torch.equal(first.rows, leverage_scores(weight, 0.3, large=64, seed=2).rows)


def test_half_precision_is_read_in_float32():
    weight = random(6, 6).bfloat16()
    assert torch.equal(leverage_scores(weight).rows, leverage_scores(weight.float()).rows)
