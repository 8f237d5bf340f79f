import random

from tombola.evaluation.batches import Size, token_batches


def test_longest_first_and_equals_in_order():
    assert token_batches([Size(2), Size(9), Size(2), Size(5)], token_budget=9) == [(1,), (3,), (0, 2)]


def test_padded_tokens_stay_within_the_budget_and_nothing_is_lost():
    draw = random.Random(0)
    sizes = [Size(draw.randint(1, 80), draw.randint(1, 4)) for _ in range(300)]
    batches = token_batches(sizes, token_budget=400)
    for batch in batches:
        assert sum(sizes[i].rows for i in batch) * max(sizes[i].length for i in batch) <= 400
    assert sorted(index for batch in batches for index in batch) == list(range(300))
    assert len(batches) < 100


def test_an_example_beyond_the_budget_stands_alone():
    assert token_batches([Size(50, 4), Size(10), Size(10)], token_budget=20) == [(0,), (1, 2)]


def test_examples_that_are_alike_go_together_and_the_longest_still_bounds_the_batch():
    sizes = [Size(9, alike=2), Size(6, alike=5), Size(8, alike=2), Size(7, alike=5)]
    assert token_batches(sizes, token_budget=18) == [(3, 1), (0, 2)]
    assert token_batches(sizes, token_budget=13) == [(3,), (1,), (0,), (2,)]
    later_is_longer = [Size(6, alike=5), Size(9, alike=4), Size(5, alike=3)]
    assert token_batches(later_is_longer, token_budget=18) == [(0, 1), (2,)]


def test_nothing_to_ask():
    assert token_batches([], token_budget=20) == []
