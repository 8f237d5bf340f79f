"""Scores by hand and by autograd."""

import pytest
import torch

from tombola.tickets import SCORES, block_sums, score, sign_stable

W = torch.tensor([2.0, -1.0, 0.0, -3.0])
G = torch.tensor([-1.0, -4.0, 5.0, 0.5])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mcs", [-2.0, 4.0, 0.0, -1.5]),
        ("neg_mcs", [2.0, -4.0, 0.0, 1.5]),
        ("cs", [2.0, 4.0, 0.0, 1.5]),
        ("gm", [1.0, 4.0, 5.0, 0.5]),
        ("wm", [2.0, 1.0, 0.0, 3.0]),
    ],
)
def test_scores_by_hand(kind, expected):
    before = W.clone(), G.clone()
    assert score(kind, W, G).tolist() == expected
    assert torch.equal(W, before[0])
    assert torch.equal(G, before[1])


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match=f"one of {', '.join(SCORES)}"):
        score("msc", W, G)


def test_mcs_is_the_gradient_of_a_mask_of_ones():
    generator = torch.Generator().manual_seed(0)
    base, delta, x = (torch.randn(5, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.ones(5, 5, dtype=torch.float64, requires_grad=True)
    torch.tanh(x @ (base + delta * mask).T).square().sum().backward()
    weight = (base + delta).requires_grad_()
    torch.tanh(x @ weight.T).square().sum().backward()
    torch.testing.assert_close(score("mcs", delta, weight.grad), mask.grad, atol=1e-12, rtol=0)


def test_block_sums_by_hand():
    scores = torch.arange(24.0).view(4, 6)
    assert block_sums(scores, 2).tolist() == [
        0 + 1 + 6 + 7, 2 + 3 + 8 + 9, 4 + 5 + 10 + 11,
        12 + 13 + 18 + 19, 14 + 15 + 20 + 21, 16 + 17 + 22 + 23,
    ]  # fmt: skip
    assert block_sums(scores, 1).tolist() == scores.flatten().tolist()
    with pytest.raises(ValueError, match="4 x 4 do not fill scores of 4 x 6"):
        block_sums(scores, 4)


def test_what_ends_at_zero_has_lost_its_sign():
    final = torch.tensor([1.0, -1.0, 0.0, 0.0, -0.0, 2.0])
    start = torch.tensor([2.0, 1.0, 1.0, 0.0, -1.0, -0.1])
    assert sign_stable(final, start).tolist() == [True, False, False, False, False, False]
