"""Beginnings computed once give each option the likelihood that it has alone."""

import random
from itertools import chain

import pytest
import torch
from peft import LoraConfig, get_peft_model

import tombola
from tombola.evaluation import likelihood
from tombola.evaluation.choose import Option, likeliest, options
from tombola.evaluation.inference import evaluating
from tombola.evaluation.key_values import empty_cache
from tombola.evaluation.likelihood import log_likelihoods, whole_log_likelihoods
from tombola.models import load_host
from tombola_cli.config.compose import compose

PROMPTS = ["A long question, is it?", "Short", "Q: 12 + 7 = ", "The word is"]
CHOICES = [[" yes", " certainly not"], [" a"], ["19", "20", "1"], [" dog", " dogs and cats", " cat", " d"]]


def asked(host):
    return [options(p, c, host.processor, special_tokens=True) for p, c in zip(PROMPTS, CHOICES, strict=True)]


def alone(net, option):
    """Reference: one row, no padding, no cache, every position's logits."""
    ids = torch.tensor([option.ids])
    with torch.no_grad():
        each = net(input_ids=ids).logits.float().log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])
    return float(each[-option.scored :].sum())


def differences(net, groups, tokenizer):
    with evaluating(net):
        found = log_likelihoods(net, groups, tokenizer)
        expected = [[alone(net, option) for option in group] for group in groups]
    assert [likeliest(scores) for scores in found] == [likeliest(scores) for scores in expected]
    pairs = zip(chain(*found), chain(*expected), strict=True)
    return max(abs(one - other) for one, other in pairs)


def calls(net, monkeypatch):
    """The shapes of what the model is run on from here on."""
    shapes, whole = [], net.forward

    def counted(*args, **inputs):
        shapes.append(tuple(inputs["input_ids"].shape))
        return whole(*args, **inputs)

    monkeypatch.setattr(net, "forward", counted)
    return shapes


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_scores_are_those_of_each_option_alone(family, request):
    host = request.getfixturevalue(family)
    groups = asked(host)
    assert differences(host.net, groups, host.processor) < 1e-4  # of sums around 30: float32's rounding
    with torch.no_grad():
        first = log_likelihoods(host.net, groups, host.processor)[0]
    assert first[0] != pytest.approx(first[1], abs=1e-2)


@pytest.mark.parametrize("seed", range(4))
def test_any_tree_of_tokens(llama, seed):
    """Contexts that end before, at and after the last shared token; options that begin others; options alone."""
    draw = random.Random(seed)
    groups = []
    for _ in range(12):
        stem = [draw.randrange(4, 260) for _ in range(draw.randint(1, 30))]
        rows = [stem + [draw.randrange(4, 260) for _ in range(draw.randint(1, 12))] for _ in range(draw.randint(1, 5))]
        rows += [[*rows[0], 9], [*stem, 9]]
        groups.append([Option(row, draw.randint(1, min(len(row) - 1, 14))) for row in rows])
    assert differences(llama.net, groups, llama.processor) < 2e-4


def test_options_that_share_no_token(llama):
    groups = [[Option([5, 6, 7], 1), Option([8, 9], 1)], [Option([5, 6], 1), Option([5, 7], 1)]]
    assert differences(llama.net, groups, llama.processor) < 1e-4


def test_a_beginning_is_run_once_and_last_tokens_never(llama, monkeypatch):
    stem = list(range(10, 50))
    groups = [[Option([*stem, 60, 61, 62], 3), Option([*stem, 70, 71, 72], 3)], [Option([*stem, 80], 1)] * 2]
    shapes = calls(llama.net, monkeypatch)
    with evaluating(llama.net):
        log_likelihoods(llama.net, groups, llama.processor)
    assert shapes == [(2, 40), (2, 2)]


def test_options_of_one_token_are_read_off_the_prompt(llama, monkeypatch):
    groups = [[Option([5, 6, 7, option], 1) for option in (20, 21, 22)] for _ in range(3)]
    shapes = calls(llama.net, monkeypatch)
    with evaluating(llama.net):
        found = log_likelihoods(llama.net, groups, llama.processor)
    assert shapes == [(3, 3)]
    assert found[0][0] == pytest.approx(alone(llama.net, groups[0][0]), abs=1e-5)


def test_letters_of_the_prompt_that_are_joined_to_the_option():
    """SmolLM2-like: what is shared ends before the context does. Tokens 1 2 | 3 4 may come back as 1 | 23 4."""
    groups = [[Option([1, 23, 4], 2), Option([1, 2, 3], 1), Option([1, 2, 5, 6], 2)]]
    roots, branches = likelihood._tree(groups)
    assert roots == [[1]]
    assert [branch.read for branch in branches] == [[23], [2], [2, 5]]


ADAPTERS = {
    "lora": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    "bola": tombola.BolaConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], k=2, in_divs=4, out_divs=4),
    "sparse_delta": tombola.SparseDeltaConfig(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], count=200, delta_init="kaiming"
    ),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_with_an_adapter(name):
    host = load_host(compose(["model=tiny_llama"])["model"], kind="generate", labels=0, seed=0)
    groups = asked(host)
    with torch.no_grad():
        before = log_likelihoods(host.net, groups, host.processor)
        model = get_peft_model(host.net, ADAPTERS[name]).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert differences(model, groups, host.processor) < 1e-4
    with torch.no_grad():
        assert log_likelihoods(model, groups, host.processor)[0][0] != pytest.approx(before[0][0], abs=1e-2)


def test_a_sliding_window_that_is_shorter_than_the_prompt(phi3, monkeypatch):
    model = compose(["model=tiny_phi3"])["model"]
    model["architecture"]["sliding_window"] = 8
    host = load_host(model, kind="generate", labels=0, seed=0)
    assert empty_cache(host.net) is not None
    groups = asked(host)
    assert differences(host.net, groups, host.processor) < 1e-4
    with torch.no_grad():  # the window is there
        assert alone(host.net, groups[0][1]) != pytest.approx(alone(phi3.net, groups[0][1]), abs=1e-3)


def test_a_model_with_other_memory_is_run_on_whole_rows(llama, monkeypatch):
    groups = asked(llama)
    monkeypatch.setattr(type(llama.net), "_is_stateful", True)
    shapes = calls(llama.net, monkeypatch)
    assert differences(llama.net, groups, llama.processor) < 1e-4
    assert shapes[0][0] == sum(map(len, groups))


def test_whole_rows(llama):
    rows = [option for group in asked(llama) for option in group]
    with evaluating(llama.net):
        together = whole_log_likelihoods(llama.net, rows, llama.processor)
        assert together == pytest.approx([alone(llama.net, row) for row in rows], abs=1e-4)


def test_parts_are_of_about_one_length(monkeypatch):
    monkeypatch.setattr(likelihood, "FEW_TOKENS", 20)
    assert likelihood._evenly([10, 0, 3, 9, 8, 30, 2, 7]) == [[5], [0, 3, 4], [7, 2, 6]]
    assert likelihood._evenly([0, 0]) == []
