"""GLUE's metrics, by scikit-learn and scipy. What is undefined for constant answers is 0: they tell nothing."""

import math
import warnings
from collections.abc import Sequence


def accuracy(gold: Sequence[int], answers: Sequence[int]) -> float:
    """Share of right answers."""
    from sklearn.metrics import accuracy_score  # seconds to import

    return float(accuracy_score(gold, answers))


def matthews(gold: Sequence[int], answers: Sequence[int]) -> float:
    """Matthews' correlation, in [-1, 1]; 0 where either side is of one class."""
    from sklearn.metrics import matthews_corrcoef

    if len(set(gold)) < 2 or len(set(answers)) < 2:
        return 0.0
    return float(matthews_corrcoef(gold, answers))


def pearson(gold: Sequence[float], answers: Sequence[float]) -> float:
    """Pearson's correlation, in [-1, 1]; 0 where either side is constant, or an answer is no finite number."""
    from scipy.stats import pearsonr

    if len(set(gold)) < 2 or len(set(answers)) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of answers that are all but constant, or not finite
        found = float(pearsonr(gold, answers).statistic)
    return found if math.isfinite(found) else 0.0


METRICS = {"accuracy": accuracy, "matthews": matthews, "pearson": pearson}
