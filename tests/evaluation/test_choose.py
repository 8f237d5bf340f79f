import pytest
import torch

from tombola.evaluation.choose import likeliest, log_likelihoods, options


def test_spaces_that_end_the_prompt_are_scored_with_the_option(llama):
    (option,) = options("Q: ", ["yes"], llama.processor, special_tokens=False)
    assert llama.processor.decode(option.ids) == "Q: yes"
    assert llama.processor.decode(option.ids[-option.scored :]) == " yes"


def test_scores_are_those_of_each_option_alone(llama):
    asked = [
        *options("A long question, is it?", [" yes", " certainly not"], llama.processor, special_tokens=True),
        *options("Short", [" a"], llama.processor, special_tokens=True),
    ]
    with torch.no_grad():
        together = log_likelihoods(llama.net, asked, llama.processor)
        for option, score in zip(asked, together, strict=True):
            ids = torch.tensor([option.ids])
            each = llama.net(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])
            assert score == pytest.approx(float(each[-option.scored :].sum()), abs=1e-4)
    assert together[0] != pytest.approx(together[1], abs=1e-2)


def test_the_first_of_equals():
    assert (likeliest([-3.0, -1.0, -1.0]), likeliest([-1.0])) == (1, 0)
