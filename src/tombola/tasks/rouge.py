"""ROUGE-L (Lin, 2004) as the sparse-adapters paper reports it: F-measure, stemmed words, the best of the references.

Words are runs of a-z and 0-9 in lower case, and Porter's stemmer is applied to those of more than three letters; so
punctuation and case count for nothing, and text in other scripts has no words.
"""

from collections.abc import Sequence


def rouge_l(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """One value in [0, 1] for each answer: that against its best reference; 0 where either has no words."""
    from rouge_score.rouge_scorer import RougeScorer  # a second to import, needed by FLAN alone

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(answers, references, strict=True)
    return [float(scorer.score_multi(list(right), answer)["rougeL"].fmeasure) for answer, right in pairs]
