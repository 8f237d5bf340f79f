"""Scores of rows and the rules that make some of them dominant, by hand and against autograd."""

import pytest
import torch

from tombola.tickets import above_mean, dominant_mask, row_scores

HITS = torch.tensor([4, 3, 2, 1, 0])
SUMS = torch.tensor([5.0, 1.0, 2.0, 9.0, 3.0])


def rows(rule: str, hits: torch.Tensor = HITS, sums: torch.Tensor = SUMS, checks: int = 4, theta: float = 0.7):
    mask = dominant_mask(rule, hits, sums, checks, theta=theta)
    assert mask.dtype == torch.bool
    return mask.nonzero().flatten().tolist()


def factors(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 7), (11, 3), (3, 7), (11, 3))  # A, B and their gradients
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize("chunk_numbers", [1, 7, 20, 1 << 20])
def test_scores_are_the_row_sums_of_the_dense_matrix_whatever_the_chunks(chunk_numbers):
    a, b, grad_a, grad_b = factors()
    dense = [sum(abs(float(b[i] @ grad_a[:, j] + grad_b[i] @ a[:, j])) for j in range(7)) for i in range(11)]
    found = row_scores(a, b, grad_a, grad_b, chunk_numbers=chunk_numbers)
    torch.testing.assert_close(found, torch.tensor(dense, dtype=torch.float64), rtol=0, atol=1e-10)


def test_no_piece_is_larger_than_was_said(monkeypatch):
    sizes, matmul = [], torch.Tensor.__matmul__

    def noting(one, other):
        sizes.append((product := matmul(one, other)).numel())
        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", noting)
    row_scores(*factors(), chunk_numbers=20)
    assert sizes == [14, 14, 14, 14, 14, 7]


def test_with_a_losss_gradients_the_matrix_is_that_of_the_identity():
    """G = dL/dW: B GA + GB A = s (B B^T G + G A^T A)."""
    a, b, _, _ = (one.requires_grad_() for one in factors())
    x, target = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 11, dtype=torch.float64)
    weight = torch.randn(11, 7, dtype=torch.float64)
    whole = (weight + 1.5 * b @ a).detach().requires_grad_()
    (x @ whole.T - target).square().sum().backward()
    (x @ (weight + 1.5 * b @ a).T - target).square().sum().backward()
    with torch.no_grad():
        identity = 1.5 * (b @ b.T @ whole.grad + whole.grad @ a.T @ a)
        found = row_scores(a, b, a.grad, b.grad)
    torch.testing.assert_close(found, identity.abs().sum(1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("loss_scale", [2.0**-10, 3.0, 1e6])
def test_hits_do_not_depend_on_the_losss_scale(loss_scale):
    a, b, grad_a, grad_b = factors(4)
    hits = above_mean(row_scores(a, b, grad_a, grad_b))
    assert 0 < int(hits.sum()) < 11
    assert torch.equal(above_mean(row_scores(a, b, loss_scale * grad_a, loss_scale * grad_b)), hits)


def test_what_is_above_the_mean_is_a_hit():
    assert above_mean(torch.tensor([1.0, 2.0, 3.0, 2.0])).tolist() == [False, False, True, False]


def test_each_rule_by_hand():
    assert rows("majority") == [0, 1], "4 and 3 of 4 checks; 2 is no majority"
    assert rows("majority", checks=3) == [0, 1, 2]
    assert rows("mean") == [0, 1], "the mean is 2"
    assert rows("cumulative") == [0, 3], "9 and 5 of 20 are 0.7"
    assert rows("cumulative", theta=0.71) == [0, 3, 4]
    assert rows("cumulative", theta=0.45) == [3]
    assert rows("top_frac") == [0, 3]
    assert rows("top_frac", sums=torch.tensor([1.0, 1.0, 1.0, 1.0])) == [0, 1], "the smaller number among equals"


def test_a_rule_that_gives_no_row_or_all_gives_way():
    few, many = torch.tensor([1, 0, 2, 0, 1]), torch.tensor([4, 3, 3, 3, 3])
    assert rows("majority", few) == [0, 2, 4], "none has 3 of 4 hits: those above the mean of 0.8"
    assert rows("majority", many) == [0], "all have: those above the mean of 3.2"
    assert rows("cumulative", many, theta=1.0) == [0]
    for even in (torch.zeros(5, dtype=torch.int64), torch.full((5,), 4)):
        assert rows("majority", even) == rows("mean", even) == [0, 3], "no hits differ: the half with larger sums"
    assert rows("majority", torch.tensor([1]), torch.tensor([1.0])) == [0], "a single row"


def test_scores_that_are_all_zero_still_give_a_half():
    nothing = torch.zeros(4)
    for rule in ("majority", "mean", "cumulative", "top_frac"):
        found = rows(rule, torch.zeros(4, dtype=torch.int64), nothing)
        assert 0 < len(found) < 4


def test_another_rule_is_refused():
    with pytest.raises(ValueError, match=r"one of majority, mean, cumulative, top_frac\. Got 'most'"):
        rows("most")
