from types import SimpleNamespace

import pytest

from tombola.evaluation.choose import likeliest, options


def test_spaces_that_end_the_prompt_are_scored_with_the_option(llama):
    (option,) = options("Q: ", ["yes"], llama.processor, special_tokens=False)
    assert llama.processor.decode(option.ids) == "Q: yes"
    assert llama.processor.decode(option.ids[-option.scored :]) == " yes"


def test_a_prompt_of_no_tokens_is_given_a_first_one(llama):
    tokenizer = llama.processor
    (option,) = options("", ["yes"], tokenizer, special_tokens=False)
    assert option.ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(option.ids[-option.scored :]) == "yes"


@pytest.mark.parametrize(("bos", "eos", "first"), [(7, 8, 7), (None, 8, 8), (0, 8, 0)])
def test_what_stands_before_an_option_without_a_prompt(bos, eos, first):
    class Letters(SimpleNamespace):
        def __call__(self, text, **_):
            return {
                "input_ids": [[ord(c) for c in t] for t in text] if isinstance(text, list) else list(map(ord, text))
            }

    tokenizer = Letters(bos_token_id=bos, eos_token_id=eos)
    assert [o.ids for o in options("", ["a", "bc"], tokenizer, special_tokens=True)] == [[first, 97], [first, 98, 99]]


def test_the_first_of_equals():
    assert (likeliest([-3.0, -1.0, -1.0]), likeliest([-1.0])) == (1, 0)
