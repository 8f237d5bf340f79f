"""Draws against what sorting a list by hand gives."""

import pytest
import torch

from tombola.tickets import draw, random_support, top_k


def by_hand(scores, count, within=None):
    places = [i for i in range(len(scores)) if within is None or within[i]]
    return sorted(sorted(places, key=lambda i: (-scores[i], i))[:count])


def test_the_largest_win_and_come_ascending():
    assert top_k(torch.tensor([0.5, -3.0, 2.0, 1.0]), 2).tolist() == [2, 3]


def test_among_equals_the_smaller_index_wins():
    assert top_k(torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0]), 3).tolist() == [0, 1, 2]
    assert top_k(torch.zeros(1000), 7).tolist() == list(range(7))


def test_a_negative_zero_equals_a_positive_one():
    assert top_k(torch.tensor([-0.0, 0.0, -0.0]), 2).tolist() == [0, 1]


@pytest.mark.parametrize("count", [0, 1, 50, 199, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_count_is_exact_where_many_are_equal(count, dtype):
    scores = torch.randint(-5, 5, (200,), generator=torch.Generator().manual_seed(3)).to(dtype)
    drawn = top_k(scores, count)
    assert drawn.dtype == torch.int64
    assert drawn.tolist() == by_hand(scores.tolist(), count)


def test_only_what_is_within_can_win():
    within = torch.tensor([False, True, True, False, True])
    scores = torch.tensor([9.0, 1.0, 3.0, 9.0, 3.0])
    assert top_k(scores, 2, within).tolist() == [2, 4]
    assert top_k(scores, 2, within).tolist() == by_hand(scores.tolist(), 2, within.tolist())


def test_more_than_there_are_and_nan_are_refused():
    with pytest.raises(ValueError, match="4 of 3"):
        top_k(torch.zeros(3), 4)
    with pytest.raises(ValueError, match="3 of 2"):
        top_k(torch.zeros(3), 3, torch.tensor([True, False, True]))
    with pytest.raises(ValueError, match="NaN"):
        top_k(torch.tensor([0.0, float("nan")]), 1)


def test_infinities_are_scores():
    assert top_k(torch.tensor([-torch.inf, torch.inf, 0.0]), 2).tolist() == [1, 2]


def test_each_tensor_has_its_own_budget():
    scores = {"a": torch.tensor([[1.0, 4.0], [3.0, 2.0]]), "b": torch.tensor([5.0, 6.0])}
    drawn = draw(scores, {"a": 2, "b": 1})
    assert {name: index.tolist() for name, index in drawn.items()} == {"a": [1, 2], "b": [1]}
    assert [index.tolist() for index in draw(scores, 1).values()] == [[1], [1]]


def test_the_model_has_one_budget():
    scores = {"a": torch.tensor([1.0, 9.0, 2.0]), "b": torch.tensor([2.0, 8.0]), "c": torch.tensor([0.0])}
    drawn = draw(scores, 3, scope="model")
    assert {name: index.tolist() for name, index in drawn.items()} == {"a": [1, 2], "b": [1], "c": []}  # 2.0: a first
    assert sum(index.numel() for index in draw(scores, 6, scope="model").values()) == 6


def test_the_model_draws_within():
    scores = {"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([2.0, 8.0])}
    within = {"a": torch.tensor([True, False]), "b": torch.tensor([True, False])}
    assert [index.tolist() for index in draw(scores, 2, scope="model", within=within).values()] == [[0], [0]]
    assert [index.tolist() for index in draw(scores, 1, within=within).values()] == [[0], [0]]


def test_blocks_are_drawn_by_their_sums():
    scores = torch.zeros(4, 6)
    scores[2:, 4:] = 1.0  # tile 5 of the 2 x 3 grid
    scores[0, 2], scores[0, 3] = 9.0, -8.0  # tile 1 sums to 1
    assert draw({"w": scores}, 1, block=2)["w"].tolist() == [5]
    assert draw({"w": scores}, 2, block=2)["w"].tolist() == [1, 5]
    assert draw({"w": scores}, 2, block=2, scope="model")["w"].tolist() == [1, 5]


def test_a_scope_and_its_budget_must_fit():
    with pytest.raises(ValueError, match="scope is tensor, or model"):
        draw({"a": torch.zeros(2)}, {"a": 1}, scope="model")
    with pytest.raises(ValueError, match="scope is tensor, or model"):
        draw({"a": torch.zeros(2)}, 1, scope="layer")


def test_random_support_is_a_set_of_its_seed():
    one, same = (random_support(50, 20, torch.Generator().manual_seed(3)) for _ in range(2))
    other = random_support(50, 20, torch.Generator().manual_seed(4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.tolist() == sorted(set(one.tolist()))
    assert len(one) == 20
    assert 0 <= int(one[0]) <= int(one[-1]) < 50
    assert random_support(3, 3, torch.Generator()).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="4 of 3"):
        random_support(3, 4, torch.Generator())


def test_random_support_draws_each_index_equally_often():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([random_support(10, 3, generator) for _ in range(2000)])
    assert (drawn.bincount(minlength=10) - 600).abs().max() < 100  # 5 standard deviations
