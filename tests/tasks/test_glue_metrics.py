"""GLUE's metrics on cases worked out by hand, the traps among them."""

import math
import warnings

import pytest

from tombola.tasks.glue_metrics import METRICS

THIRD = 1 / 3
CASES = [
    # metric, gold, answers, value
    ("accuracy", [0, 1, 2], [0, 1, 2], 1.0),
    ("accuracy", [0, 1, 2], [1, 2, 0], 0.0),
    ("accuracy", [0, 1, 1, 1], [1, 1, 1, 1], 0.75),  # the majority
    ("accuracy", [2], [2], 1.0),
    ("accuracy", [0, 0, 1], [0, 1, 1], 2 / 3),
    # F1 would be 2/3 here, and 4/5 with the classes turned
    ("accuracy", [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], 0.8),
    ("matthews", [0, 1, 0, 1], [0, 1, 0, 1], 1.0),
    ("matthews", [0, 1, 0, 1], [1, 0, 1, 0], -1.0),
    ("matthews", [0, 1, 0, 1], [0, 0, 1, 1], 0.0),
    ("matthews", [0, 1, 1, 1], [1, 1, 1, 1], 0.0),  # one class answered: 0 / 0
    ("matthews", [1, 1, 1, 1], [0, 1, 1, 1], 0.0),  # one class asked
    ("matthews", [1, 1], [1, 1], 0.0),  # both, and all right
    ("matthews", [1], [1], 0.0),
    # TP 2, TN 1, FP 1, FN 0: (2*1 - 1*0) / sqrt(3 * 2 * 2 * 1)
    ("matthews", [1, 1, 0, 0], [1, 1, 1, 0], 2 / math.sqrt(12)),
    # TP 3, TN 0, FP 1, FN 1: accuracy 0.6 and worse than chance
    ("matthews", [1, 1, 1, 1, 0], [1, 1, 1, 0, 1], (0 - 1) / math.sqrt(4 * 4 * 1 * 1)),
    ("pearson", [0.0, 2.5, 5.0], [0.0, 2.5, 5.0], 1.0),
    ("pearson", [0.0, 2.5, 5.0], [10.0, 10.5, 11.0], 1.0),  # shift and scale do not count
    ("pearson", [0.0, 2.5, 5.0], [5.0, 2.5, 0.0], -1.0),
    ("pearson", [0.0, 1.0, 2.0, 3.0], [1.0, -1.0, -1.0, 1.0], 0.0),
    ("pearson", [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], 0.5),
    # ranks agree, numbers less so: (-1 * -1.5 + 0 * -1 + 1 * 2.5) / sqrt(2 * 9.5), where Spearman's is 1
    ("pearson", [1.0, 2.0, 3.0], [0.0, 0.5, 4.0], 4.0 / math.sqrt(2 * 9.5)),
    ("pearson", [1.0, 2.0, 3.0], [2.7, 2.7, 2.7], 0.0),  # constant: 0 / 0
    ("pearson", [3.0, 3.0, 3.0], [1.0, 2.0, 3.0], 0.0),
    ("pearson", [3.0], [3.0], 0.0),  # scipy refuses one pair
    ("pearson", [1.0, 2.0, 3.0], [math.nan, 2.0, 3.0], 0.0),
    ("pearson", [1.0, 2.0, 3.0], [math.inf, 2.0, 3.0], 0.0),
    ("pearson", [1.0, 2.0, 3.0], [1e200, 2e200, 3e200], 1.0),
]


@pytest.mark.parametrize(("metric", "gold", "answers", "value"), CASES)
def test_a_metric_is_what_was_worked_out(metric, gold, answers, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = METRICS[metric](gold, answers)
    assert type(found) is float
    assert found == pytest.approx(value, abs=1e-12)
    assert -1 <= found <= 1


def test_answers_that_are_all_but_constant_are_no_error():
    assert abs(METRICS["pearson"]([1.0, 2.0, 4.0], [2.7, 2.7 + 1e-15, 2.7])) <= 1
