"""Lines taken out, by hand."""

import math

import pytest
import torch

from tombola.tickets import kept_lines, last_passing, without_lines

IMPORTANCE = torch.tensor([0.5, 0.1, 0.9, 0.1, 0.7])


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.0, [0, 1, 2, 3, 4]), (0.19, [0, 1, 2, 3, 4]), (0.2, [0, 1, 2, 4]), (0.4, [0, 2, 4]), (0.79, [2, 4]), (1.0, [])],
)
def test_the_least_important_go_first(share, kept):
    assert kept_lines(IMPORTANCE, share).nonzero().flatten().tolist() == kept


def test_shares_that_floats_put_below_a_whole_number_are_counted_whole():
    assert int(kept_lines(torch.rand(100), 0.29).sum()) == 71


def test_so_many_stay_whatever_the_share():
    assert kept_lines(IMPORTANCE, 1.0, least=1).tolist() == [False, False, True, False, False]
    assert int(kept_lines(IMPORTANCE, 0.2, least=1).sum()) == 4


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_have_limits(share):
    with pytest.raises(ValueError, match="from 0 to 1"):
        kept_lines(IMPORTANCE, share)


def test_rows_and_columns_go_together():
    weight = torch.arange(1.0, 7.0).view(2, 3)
    masked = without_lines(weight, torch.tensor([True, False]), torch.tensor([False, True, True]))
    assert masked.tolist() == [[0, 2, 3], [0, 0, 0]]
    assert weight.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("most", [0, 1, 2, 19, 20])
def test_bisection_ends_where_steps_would(most):
    for last in range(most + 1):
        asked = []

        def passes(step, last=last, asked=asked):
            asked.append(step)
            return step <= last

        assert last_passing(passes, most) == last
        assert len(asked) <= math.ceil(math.log2(most + 1))
        assert set(asked) <= set(range(1, most + 1))
