import itertools

import pytest
import torch

from tombola.training import batches
from tombola.training.batches import (
    TOKENS_PER_CALL,
    epoch_order,
    loss_terms,
    micro_batches,
    row_length,
    steps_per_epoch,
)

LENGTHS = [5, 19, 7, 7, 3, 12, 30, 4, 9, 11]


def test_an_epoch_s_order_is_a_permutation_that_depends_on_seed_phase_and_epoch_alone() -> None:
    order = epoch_order(50, seed=1, phase="train", epoch=0)
    assert sorted(order) == list(range(50))
    assert order == epoch_order(50, seed=1, phase="train", epoch=0)
    others = [{"seed": 2}, {"phase": "other"}, {"epoch": 1}]
    for other in others:
        assert order != epoch_order(50, **{"seed": 1, "phase": "train", "epoch": 0, **other})  # type: ignore[arg-type]


def test_the_order_does_not_touch_torch_s_generator() -> None:
    before = torch.get_rng_state()
    epoch_order(50, seed=1, phase="train", epoch=0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_redraw_keeps_what_was_seen_and_shuffles_the_rest() -> None:
    plain = epoch_order(50, seed=1, phase="train", epoch=2)
    once = epoch_order(50, seed=1, phase="train", epoch=2, redraws=[(2, 20)])
    twice = epoch_order(50, seed=1, phase="train", epoch=2, redraws=[(2, 20), (2, 20)])
    assert once[:20] == twice[:20] == plain[:20]
    assert once != plain
    assert twice != once
    assert sorted(twice) == list(range(50))
    assert plain == epoch_order(50, seed=1, phase="train", epoch=2, redraws=[(3, 20)])
    later = epoch_order(50, seed=1, phase="train", epoch=2, redraws=[(1, 20)])
    assert later[:20] != plain[:20]
    assert sorted(later) == list(range(50))


@pytest.mark.parametrize("budget", [1, 12, 30, 40, 1000])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_micro_batches_hold_every_row_once_within_the_budget_on_equally_many_turns(budget: int, ranks: int) -> None:
    rounds = micro_batches(range(10), LENGTHS, budget, ranks)
    assert all(len(turn) == ranks for turn in rounds)
    pieces = [piece for turn in rounds for piece in turn]
    assert sorted(row for piece in pieces for row in piece) == list(range(10))
    for piece in pieces:
        assert len(piece) <= 1 or len(piece) * max(LENGTHS[row] for row in piece) <= budget


def test_rows_are_sorted_by_length_so_that_little_is_padding() -> None:
    lengths = [length * 40 for length in LENGTHS]
    rounds = micro_batches(range(10), lengths, 2000, 1)
    # widest first: what runs out of memory does so at once
    assert rounds == [[(6,)], [(5, 9)], [(1,)], [(2, 3)], [(0, 7)], [(8,)], [(4,)]]


def test_a_cut_has_to_save_more_than_a_call_costs() -> None:
    assert micro_batches(range(2), [TOKENS_PER_CALL + 9, 10], 10_000, 1) == [[(0, 1)]]
    assert micro_batches(range(2), [TOKENS_PER_CALL + 11, 10], 10_000, 1) == [[(0,)], [(1,)]]


@pytest.mark.parametrize("budget", [30, 60, 1000])
def test_no_other_cut_is_cheaper(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "TOKENS_PER_CALL", 10)

    def cost(pieces: list[tuple[int, ...]]) -> int:
        return sum(10 + len(piece) * max(LENGTHS[row] for row in piece) for piece in pieces)

    ordered = sorted(range(10), key=lambda row: -LENGTHS[row])
    others = []
    for cuts in itertools.product([False, True], repeat=9):
        ends = [place + 1 for place, cut in enumerate(cuts) if cut] + [10]
        pieces = [tuple(ordered[start:end]) for start, end in itertools.pairwise([0, *ends])]
        if all(len(piece) * LENGTHS[piece[0]] <= budget for piece in pieces):
            others.append(cost(pieces))
    found = [turn[0] for turn in micro_batches(range(10), LENGTHS, budget, 1)]
    assert cost(found) == min(others)


def test_a_batch_that_fits_one_rank_is_shared_by_two() -> None:
    assert micro_batches(range(4), [5, 5, 5, 5], 1000, 2) == [[(0, 1), (2, 3)]]


def test_a_rank_without_a_row_idles() -> None:
    assert micro_batches([3], LENGTHS, 1000, 2) == [[(3,), ()]]


def test_lengths_and_terms_of_rows() -> None:
    assert row_length({"input_ids": [1, 2, 3], "label": 0}) == 3
    assert row_length({"pixel_values": torch.zeros(3, 224, 224), "label": 0}) == 196
    assert loss_terms({"input_ids": [1, 2, 3], "label": 0}) == 1
    # the first token has nothing before it to be predicted from
    assert loss_terms({"input_ids": [1, 2, 3, 4], "labels": [1, -100, 3, 4]}) == 2


def test_the_last_batch_of_an_epoch_may_be_smaller() -> None:
    assert steps_per_epoch(32, 6) == 6
