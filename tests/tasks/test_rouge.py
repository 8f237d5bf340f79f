"""Values by hand: 2 * common / (words of the answer + words of the reference), common in order and with gaps."""

import pytest

from tombola.tasks.rouge import rouge_l

TABLE = [
    ("yes", ["yes"], 1),
    ("no", ["yes"], 0),
    ("", ["yes"], 0),
    ("  \n", ["yes"], 0),
    ("...", ["yes"], 0),  # no word in it
    ("yes", [""], 0),
    ("Yes.", ["yes"], 1),  # neither case nor punctuation counts
    (" YES \n", ["yes"], 1),
    ("(B)", ["B"], 1),
    ("(A) dog", ["(B) dog"], 1 / 2),
    ("the cat sat", ["the cat sat on the mat"], 2 * 3 / (3 + 6)),
    ("the cat sat on the mat today now", ["the cat sat"], 2 * 3 / (8 + 3)),
    ("a x b y c", ["a b c"], 2 * 3 / (5 + 3)),  # gaps are free, their words are not
    ("mat the on sat cat the", ["the cat sat on the mat"], 2 * 3 / (6 + 6)),  # the same words in another order
    ("b a", ["a b"], 2 * 1 / (2 + 2)),
    ("the the the the", ["the cat"], 2 * 1 / (4 + 2)),  # a word counts as often as the reference has it
    ("cat cat", ["cat cat"], 1),
    ("cats", ["cat"], 1),  # stemmed
    ("running dogs", ["run dog"], 1),
    ("quickly", ["quick"], 0),  # Porter's stem is quickli
    ("was", ["wa"], 0),  # three letters are left alone
    ("yes\nno\nno", ["yes"], 2 * 1 / (3 + 1)),  # a model that goes on pays for it
    ("yes</s>", ["yes"], 2 * 1 / (2 + 1)),  # a special token that was left in is a word
    ("7.", ["7"], 1),
    ("1,000", ["1000"], 0),  # the comma parts it
    ("well-known", ["well known"], 1),
    ("don't", ["dont"], 0),
    ("Привет", ["Привет"], 0),  # words are of a-z and 0-9
    ("it rains", ["no", "it rains today"], 2 * 2 / (2 + 3)),  # the best of several references, not their mean
    ("it rains", ["it rains", "snow"], 1),
]


@pytest.mark.parametrize(("answer", "references", "expected"), TABLE)
def test_the_table(answer, references, expected):
    assert rouge_l([answer], [references]) == [pytest.approx(expected)]


def test_each_answer_meets_its_own_references():
    assert rouge_l(["yes", "no"], [["yes"], ["yes", "perhaps"]]) == [1.0, 0.0]
    with pytest.raises(ValueError, match="zip"):
        rouge_l(["yes"], [["yes"], ["no"]])
