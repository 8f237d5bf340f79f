import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tombola.evaluation.generate import continuations, end_tokens, spoken
from tombola.evaluation.inference import evaluating
from tombola.tasks import Generation

PROMPTS = ["Once", "A rather longer beginning of a text", "1 + 1 = ", "x"]


def ids_of(host):
    return [host.processor(prompt)["input_ids"] for prompt in PROMPTS]


def said(host, net, ids, generation):
    with evaluating(net):
        return continuations(net, ids, host.processor, generation)


def greedy_without_cache(net, ids, steps, ends):
    """Reference: one prompt, the whole text again for every token."""
    new = []
    with torch.no_grad():
        for _ in range(steps):
            new.append(int(net(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax()))
            if new[-1] in ends:
                return new[:-1]
    return new


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_padded_batches_say_what_each_prompt_alone_does(family, request):
    host = request.getfixturevalue(family)
    ends = end_tokens(host.net, host.processor)
    expected = [
        host.processor.decode(greedy_without_cache(host.net, ids, 12, ends), skip_special_tokens=True)
        for ids in ids_of(host)
    ]
    assert said(host, host.net, ids_of(host), Generation(12)) == expected
    assert len(set(expected)) > 1


def test_one_token_is_the_first_of_many(llama):
    many = said(llama, llama.net, ids_of(llama), Generation(2))
    one = said(llama, llama.net, ids_of(llama), Generation(1))
    assert [text[:1] for text in many] == one


def test_beams_are_those_of_each_prompt_alone(llama):
    beams = Generation(8, num_beams=4)
    together = said(llama, llama.net, ids_of(llama), beams)
    assert together == [said(llama, llama.net, [ids], beams)[0] for ids in ids_of(llama)]
    assert together != said(llama, llama.net, ids_of(llama), Generation(8))


def test_an_answer_stops_at_the_end_of_text(llama, monkeypatch):
    ids = ids_of(llama)[:1]
    tokens = greedy_without_cache(llama.net, ids[0], 10, ())
    monkeypatch.setattr(llama.net.generation_config, "eos_token_id", [tokens[4], 2])
    first = tokens.index(tokens[4])
    (text,) = said(llama, llama.net, ids, Generation(10))
    assert text == llama.processor.decode(tokens[:first], skip_special_tokens=True)
    assert len(text) < 10


def test_a_finished_row_leaves_the_batch(llama, monkeypatch):
    ids = ids_of(llama)
    tokens = [greedy_without_cache(llama.net, row, 10, ()) for row in ids]
    end = tokens[1][2]  # ends the second answer at its third token, if not before
    monkeypatch.setattr(llama.net.generation_config, "eos_token_id", [end])
    ends = end_tokens(llama.net, llama.processor)
    expected = [greedy_without_cache(llama.net, row, 10, ends) for row in ids]
    assert len({len(new) for new in expected}) > 1
    rows, whole = [], llama.net.forward

    def counted(*args, **inputs):
        rows.append(len(inputs["input_ids"]))
        return whole(*args, **inputs)

    monkeypatch.setattr(llama.net, "forward", counted)
    found = said(llama, llama.net, ids, Generation(10))
    assert found == [llama.processor.decode(new, skip_special_tokens=True) for new in expected]
    steps = [min(10, len(new) + 1) for new in expected]
    assert rows == [sum(step > number for step in steps) for number in range(max(steps))]


def test_each_token_stands_behind_the_one_before(llama, monkeypatch):
    """Asked of the inputs: a tiny random model says much the same wherever a token stands."""
    ids, seen, whole = ids_of(llama), [], llama.net.forward

    def looked_at(*args, **inputs):
        seen.append((inputs["position_ids"][:, -1].tolist(), inputs["attention_mask"].sum(1).tolist()))
        return whole(*args, **inputs)

    monkeypatch.setattr(llama.net, "forward", looked_at)
    said(llama, llama.net, ids, Generation(4))
    lengths = [[len(row) + step for row in ids] for step in range(4)]
    assert seen == [([length - 1 for length in row], row) for row in lengths]


@pytest.mark.parametrize("beams", [1, 2])
def test_an_answer_stops_with_a_stop_string(llama, beams):
    ids = ids_of(llama)
    whole = said(llama, llama.net, ids, Generation(12, beams))
    stop = whole[1][3:5]
    stopped = said(llama, llama.net, ids, Generation(12, beams, (stop, "never said")))
    if beams == 1:
        assert stopped == [text[: text.index(stop) + len(stop)] if stop in text else text for text in whole]
        assert len(stopped[1]) < len(whole[1])
    assert stopped[1].endswith(stop)


def test_a_stop_string_ends_the_work_too(llama, monkeypatch):
    ids = ids_of(llama)[1:2]
    (whole,) = said(llama, llama.net, ids, Generation(12))
    steps, forward = [], llama.net.forward

    def counted(*args, **inputs):
        steps.append(1)
        return forward(*args, **inputs)

    monkeypatch.setattr(llama.net, "forward", counted)
    (text,) = said(llama, llama.net, ids, Generation(12, 1, (whole[3:5],)))
    assert len(steps) < 12
    assert text == whole[: whole.index(whole[3:5]) + 2]


def test_text_stops_at_the_first_of_several_strings_and_before_the_end(llama):
    ids = llama.processor("one two three", add_special_tokens=False)["input_ids"]
    assert spoken(ids, [], llama.processor, ("three", "two")) == "one two"
    assert spoken(ids, [ids[3]], llama.processor, ("two",)) == "one"


def test_a_model_with_other_memory_is_left_to_transformers(llama, monkeypatch):
    expected = said(llama, llama.net, ids_of(llama), Generation(8))
    monkeypatch.setattr(type(llama.net), "_is_stateful", True)
    used, generate = [], llama.net.generate
    monkeypatch.setattr(llama.net, "generate", lambda **inputs: used.append(1) or generate(**inputs))
    assert said(llama, llama.net, ids_of(llama), Generation(8)) == expected
    assert used == [1]


def test_the_models_own_settings_change_nothing(llama, monkeypatch):
    expected = said(llama, llama.net, ids_of(llama), Generation(8))
    for name, value in {"do_sample": True, "temperature": 9.0, "repetition_penalty": 50.0, "min_length": 30}.items():
        monkeypatch.setattr(llama.net.generation_config, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert said(llama, llama.net, ids_of(llama), Generation(8)) == expected


def test_an_adapted_model_says_what_it_says_merged(llama):
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    base = said(llama, llama.net, ids_of(llama), Generation(8))
    adapted = get_peft_model(llama.net, config)
    try:
        changed = said(llama, adapted, ids_of(llama), Generation(8))
        assert said(llama, adapted, ids_of(llama), Generation(1)) == [text[:1] for text in changed]
        adapted.merge_adapter()
        assert said(llama, adapted, ids_of(llama), Generation(8)) == changed
        adapted.unmerge_adapter()
    finally:
        adapted.unload()
    assert changed != base
    assert said(llama, llama.net, ids_of(llama), Generation(8)) == base
