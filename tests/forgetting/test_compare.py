"""Row for row against what lm-eval's command line logs."""

import copy

import pytest

from tombola.forgetting import compared

OURS = [
    {"row": 0, "of": "a", "target": 0, "said": [[-1.5, False], [-2.0, True]], "acc": 1.0},
    {"row": 1, "of": "b", "target": 1, "said": [[-1.0, False], [-3.0, False]], "acc": 0.0},
]
LINE = {"filter": "none", "metrics": ["acc"]}
THEIRS = [  # numbers are text there, and the order is not the rows'
    {**LINE, "doc_id": 1, "doc_hash": "b", "resps": [[["-1.0", "False"]], [["-3.0", "False"]]], "acc": 0.0},
    {**LINE, "doc_id": 0, "doc_hash": "a", "resps": [[["-1.5", "False"]], [["-2.0", "True"]]], "acc": 1.0},
]


def test_likelihoods_and_scores_that_are_the_same():
    assert compared(OURS, THEIRS) == {
        "n": 2,
        "answers": 4,
        "equal": 4,
        "largest_difference": 0.0,
        "metrics": {"acc": {"ours": 0.5, "lm_eval": 0.5, "rows_scored_otherwise": 0}},
    }


def test_every_difference_is_seen():
    other = copy.deepcopy(THEIRS)
    other[0] |= {"resps": [[["-1.25", "False"]], [["-3.0", "False"]]], "acc": 1.0}
    other[1]["acc"] = 0.0
    found = compared(OURS, other)
    assert (found["equal"], found["largest_difference"]) == (3, 0.25)
    assert found["metrics"]["acc"] == {"ours": 0.5, "lm_eval": 0.5, "rows_scored_otherwise": 2}


def test_texts_with_a_line_for_each_filter():
    ours = [{"row": 0, "of": "a", "said": ["18"], "exact_match_strict": 0.0, "exact_match_flexible": 1.0}]
    line = {"doc_id": 0, "doc_hash": "a", "resps": [["18"]], "metrics": ["exact_match"]}
    theirs = [
        {**line, "filter": "strict-match", "exact_match": 0.0},
        {**line, "filter": "flexible-extract", "exact_match": 1.0},
    ]
    found = compared(ours, theirs)
    assert (found["answers"], found["equal"]) == (1, 1)
    assert set(found["metrics"]) == {"exact_match_strict", "exact_match_flexible"}
    assert compared([{**ours[0], "said": ["19"]}], theirs)["equal"] == 0


def test_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="other rows were asked: 1 here, 2 by lm-eval; expected the same ones"):
        compared(OURS[:1], THEIRS)
