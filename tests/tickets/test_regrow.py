"""Supports that change a little, by hand."""

import pytest
import torch

from tombola.tickets import drop_fraction, grow_and_drop

SUPPORT = torch.tensor([1, 3, 4, 7])


def test_the_weakest_go_and_the_best_others_come():
    keep = torch.tensor([0.5, 0.1, 0.9, 0.2])
    grow = torch.tensor([0.0, 9.0, 5.0, 9.0, 9.0, 1.0, 4.0, 9.0])
    assert grow_and_drop(SUPPORT, keep, grow, 2).tolist() == [1, 2, 4, 6]


def test_among_equals_the_smaller_index_stays_and_grows():
    assert grow_and_drop(SUPPORT, torch.ones(4), torch.ones(8), 1).tolist() == [0, 1, 3, 4]


def test_nothing_changes_at_zero():
    assert grow_and_drop(SUPPORT, torch.ones(4), torch.ones(8), 0).tolist() == SUPPORT.tolist()


def test_only_candidates_grow():
    within = torch.tensor([False, False, False, False, False, True, True, False])
    grow = torch.tensor([9.0, 0.0, 9.0, 0.0, 0.0, 1.0, 2.0, 0.0])
    assert grow_and_drop(SUPPORT, torch.tensor([1.0, 2.0, 3.0, 4.0]), grow, 1, within=within).tolist() == [3, 4, 6, 7]


def test_under_regrow_a_dropped_unit_may_come_back():
    keep, grow = torch.tensor([0.1, 0.2, 3.0, 4.0]), torch.tensor([1.0, 5.0, 0, 0, 9.0, 0, 0, 9.0])
    assert grow_and_drop(SUPPORT, keep, grow, 2, regrow=True).tolist() == [0, 1, 4, 7]
    assert grow_and_drop(SUPPORT, keep, grow, 2).tolist() == [0, 2, 4, 7]


@pytest.mark.parametrize("regrow", [False, True])
def test_too_few_candidates_bring_the_best_dropped_back(regrow):
    within = torch.tensor([True, True, False, False, False, False, False, False])
    grown = grow_and_drop(SUPPORT, torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(8), 4, within=within, regrow=regrow)
    assert grown.tolist() == ([0, 1, 4, 7] if regrow else [0, 3, 4, 7])


@pytest.mark.parametrize("regrow", [False, True])
def test_the_size_is_constant_and_no_unit_is_twice(regrow):
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        size = int(torch.randint(4, 30, (), generator=generator))
        units = int(torch.randint(1, size + 1, (), generator=generator))
        support = torch.randperm(size, generator=generator)[:units].sort().values
        count = int(torch.randint(0, units + 1, (), generator=generator))
        grow = torch.randint(0, 4, (size,), generator=generator).float()
        within = torch.rand(size, generator=generator) < 0.5
        changed = grow_and_drop(support, torch.rand(units), grow, count, within=within, regrow=regrow)
        assert changed.tolist() == sorted(set(changed.tolist()))
        assert len(changed) == units
        assert int((~torch.isin(changed, support)).sum()) <= count


def test_the_fraction_falls_to_nothing():
    assert drop_fraction(0, 100) == 0.2
    assert drop_fraction(25, 100) == pytest.approx(0.15)
    assert drop_fraction(100, 100) == 0
    assert drop_fraction(50, 100, initial=0.4, decay="cosine") == pytest.approx(0.2)
    assert drop_fraction(100, 100, decay="cosine") == pytest.approx(0)
    with pytest.raises(ValueError, match="linear or cosine"):
        drop_fraction(0, 1, decay="exponential")
