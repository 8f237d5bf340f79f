"""Layer drop (arXiv 2507.07140, Eq. 5-6) by hand, and tickets compared."""

import pytest
import torch

from tombola.tickets import density, kept_layers, origins, overlap


def test_a_layer_is_kept_for_its_share_of_the_model_s_best():
    scores = {
        "a": torch.tensor([9.0, 8.0, 0.0, 0.0]),
        "b": torch.tensor([7.0, 0.0, 0.0, 0.0]),
        "c": torch.tensor([6.0, 5.0, 4.0, 0.0]),
    }
    # The six best of twelve are 9 8 7 6 5 4: shares 2/4, 1/4, 3/4 against 1/2.
    assert kept_layers(scores, dict.fromkeys(scores, 2)) == ["a", "c"]
    # The three best are 9 8 7: shares 2/4, 1/4, 0 against 1/4.
    assert kept_layers(scores, dict.fromkeys(scores, 1)) == ["a", "b"]


def test_equals_are_taken_in_the_layers_order():
    scores = {"a": torch.ones(4), "b": torch.ones(4)}
    assert kept_layers(scores, {"a": 2, "b": 2}) == ["a"]


def test_at_least_one_layer_is_kept_though_budgets_are_rounded_down():
    # A tenth of 15 is 1.5, hence 1: each layer has one of the two best, which is less than a tenth of it.
    scores = {name: torch.arange(15.0) for name in ("a", "b")}
    assert kept_layers(scores, {"a": 1, "b": 1}) == ["a", "b"]


def test_blocks_are_counted_as_units():
    scores = {"a": torch.zeros(4, 4), "b": torch.zeros(4, 4)}
    scores["b"][:2, :2] = 1.0
    scores["b"][2:, 2:] = 2.0
    assert kept_layers(scores, {"a": 1, "b": 1}, block=2) == ["b"]


@pytest.mark.parametrize("seed", range(20))
def test_some_layer_always_stays(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {str(i): torch.rand(10 + i, generator=generator) * (1 + 3 * i) for i in range(5)}
    kept = kept_layers(scores, {name: int(0.3 * len(one)) for name, one in scores.items()})
    assert 1 <= len(kept) <= 5


def test_origins_by_hand():
    assert origins(torch.tensor([0, 3, 5, 9]), torch.tensor([3, 4, 9])).tolist() == [-1, 0, -1, 2]
    assert origins(torch.tensor([3]), torch.tensor([], dtype=torch.int64)).tolist() == [-1]
    assert origins(torch.tensor([], dtype=torch.int64), torch.tensor([3])).tolist() == []


def test_overlap_and_density_by_hand():
    assert overlap(torch.tensor([0, 3, 5, 9]), torch.tensor([3, 4, 9, 11])) == 0.5
    assert overlap(torch.tensor([3]), torch.tensor([1, 2, 3, 4])) == 1.0
    assert overlap(torch.tensor([], dtype=torch.int64), torch.tensor([3])) == 0.0
    assert density(torch.tensor([1, 2, 5]), 12) == 0.25
