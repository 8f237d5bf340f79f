"""Our batches are lm-eval's own, so that our likelihoods are, to the bit."""

import random
from types import SimpleNamespace

from lm_eval.models.utils import Collator

from tombola.forgetting.language_model import generation_batches, likelihood_batches


def requests(count=60):
    """Questions of 2 to 4 options, some of which differ in one last token, some questions twice."""
    numbers = random.Random(0)
    made = []
    for _ in range(count // 3):
        context = [numbers.randrange(9) for _ in range(numbers.randrange(1, 12))]
        for _ in range(numbers.randrange(2, 5)):
            continuation = [numbers.randrange(9) for _ in range(numbers.choice((1, 1, 2, 5)))]
            made.append((("", ""), context, continuation))
    return [*made, *made[:4]]


def test_likelihoods_are_batched_as_lm_eval_batches_them():
    asked = requests()
    by_lm_eval = Collator(
        asked,
        sort_fn=lambda one: (-len(one[1] + one[2]), tuple(one[1] + one[2])),
        group_by="contexts",
        group_fn=lambda one: one[-2] + one[-1][:-1],
    )
    ours = likelihood_batches(asked, 7)
    assert sorted(number for batch in ours for number in batch) == list(range(len(asked)))
    for batch, theirs in zip(ours, by_lm_eval.get_batched(n=7), strict=True):
        rows = {tuple(asked[number][1] + asked[number][2][:-1]) for number in batch}
        assert rows == {tuple(context + continuation[:-1]) for _, context, continuation in theirs}


def test_texts_are_batched_by_their_settings_and_length():
    settings = [{"until": ["Q"]}, {"until": ["Q"], "max_gen_toks": 5}]
    asked = [SimpleNamespace(args=("x" * length, settings[length % 2])) for length in (5, 9, 2, 7, 4, 1, 8)]
    batches = generation_batches(asked, [len(one.args[0]) for one in asked], 2)
    assert [[len(asked[number].args[0]) for number in batch] for batch in batches] == [[9, 7], [5, 1], [8, 4], [2]]
