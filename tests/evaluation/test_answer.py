import importlib
import io

import numpy as np
import pytest
import torch
from rich.console import Console

from tombola.evaluation import AnswerFile, answer, evaluation_progress
from tombola.evaluation import questions as asking
from tombola.models import load_host
from tombola.tasks import Example, Generation
from tombola_cli.config.compose import compose

answering = importlib.import_module("tombola.evaluation.answer")  # in the package the name is the function's

TEXTS = ["Once", "A rather longer beginning of a text", "1 + 1 = ", "x", "In the end there", "was a word"]
EXAMPLES = [Example(text, "", "") for text in TEXTS]


def ask(host, task, examples=EXAMPLES, budget=60, **options):
    return answer(host.net, task, examples, host.processor, token_budget=budget, **options)


def test_answers_come_in_the_order_of_the_examples(llama, make_task):
    task = make_task("generate")
    together = ask(llama, task, budget=10_000)
    assert ask(llama, task, budget=1) == together
    assert ask(llama, task, EXAMPLES[::-1], budget=60) == together[::-1]
    assert len(set(together)) > 1


def test_classes_and_numbers_of_a_head(roberta, make_task):
    with torch.no_grad():
        logits = [roberta.net(**roberta.processor(text, return_tensors="pt")).logits[0] for text in TEXTS]
    assert ask(roberta, make_task("classify")) == [int(row.argmax()) for row in logits]
    regression = load_host(compose(["model=tiny_roberta"])["model"], kind="regress", labels=1, seed=0)
    with torch.no_grad():
        numbers = [float(regression.net(**regression.processor(t, return_tensors="pt")).logits) for t in TEXTS]
    assert ask(regression, make_task("regress")) == pytest.approx(numbers, abs=1e-5)


def test_rows_for_a_head_are_cut_as_in_training(roberta, make_task):
    long, short = [Example("abcdefgh" * 3, 0, 0)], [Example("abcdefgh" * 3 + "ijkl" * 9, 0, 0)]
    regress = make_task("regress")
    net = roberta.net
    cut = [answer(net, regress, e, roberta.processor, token_budget=99, max_length=12) for e in (long, short)]
    assert cut[0] == cut[1]


def test_classes_of_images(vit, make_task):
    images = [np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8) for seed in range(4)]
    examples = [Example("", 0, 0, image=image) for image in images]
    pixels = vit.processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = vit.net(pixel_values=pixels).logits.argmax(-1).tolist()
    assert ask(vit, make_task("classify"), examples, budget=400) == expected


def test_the_likeliest_option(llama, make_task):
    choices = (" yes", " no", " perhaps not at all")
    examples = [Example(text, 0, 0, choices[: 2 + number % 2]) for number, text in enumerate(TEXTS)]
    chosen = ask(llama, make_task("choose"), examples, budget=10_000)
    assert ask(llama, make_task("choose"), examples, budget=1) == chosen
    assert all(0 <= number < len(example.choices) for number, example in zip(chosen, examples, strict=True))


def test_a_model_is_left_in_training_and_can_be_trained(llama, make_task):
    llama.net.train()
    ask(llama, make_task("generate"))
    assert llama.net.training
    embedding = llama.net.get_input_embeddings().weight.requires_grad_(True)
    llama.net(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert embedding.grad is not None
    embedding.requires_grad_(False).grad = None
    llama.net.eval()


def killed_after(batches, monkeypatch):
    """Let so many batches be answered, then stop as a kill would; returns the batches that were asked."""
    asked, whole = [], asking.continuations

    def counted(model, prompts, tokenizer, generation):
        if len(asked) == batches:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return whole(model, prompts, tokenizer, generation)

    monkeypatch.setattr(asking, "continuations", counted)
    return asked


def test_a_killed_evaluation_goes_on_with_the_same_batches(llama, make_task, tmp_path, monkeypatch):
    task, path = make_task("generate"), tmp_path / "t-test.jsonl"
    expected = ask(llama, task)
    with monkeypatch.context() as patch:
        all_batches = killed_after(99, patch)
        assert ask(llama, task, answers=AnswerFile(tmp_path / "whole.jsonl", "w")) == expected
    with monkeypatch.context() as patch:
        killed_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            ask(llama, task, answers=AnswerFile(path, "w"))
    path.write_bytes(path.read_bytes()[:-3])  # the kill tore the second batch: it is asked again, whole
    with monkeypatch.context() as patch:
        rest = killed_after(99, patch)
        assert ask(llama, task, answers=AnswerFile(path, "w")) == expected
        assert rest == all_batches[1:]
        assert ask(llama, task, answers=AnswerFile(path, "w")) == expected
        assert rest == all_batches[1:]  # nothing was left to ask
    assert all_batches == [1, 2, 3]


@pytest.mark.parametrize("change", [{"budget": 100}, {"of": "other weights"}, {"version": 2}, {"tokens": 5}])
def test_answers_given_otherwise_are_not_reused(llama, make_task, tmp_path, monkeypatch, change):
    path = tmp_path / "t-test.jsonl"
    ask(llama, make_task("generate"), answers=AnswerFile(path, "w"))
    asked = killed_after(99, monkeypatch)
    task = make_task("generate", version=change.get("version", 1), generation=Generation(change.get("tokens", 8)))
    file = AnswerFile(path, change.get("of", "w"))
    ask(llama, task, budget=change.get("budget", 60), answers=file)
    assert sum(asked) == len(EXAMPLES)


def test_two_ranks_share_the_batches_and_both_have_all_answers(llama, make_task, monkeypatch):
    """The exchange is played here one rank after the other; `test_ranks.py` has two real processes."""
    task, shares = make_task("generate"), []
    expected = ask(llama, task)

    def gather(mine, world_size):
        shares.append(mine)
        return dict.fromkeys(range(len(EXAMPLES))) | shares[0] | mine

    monkeypatch.setattr(answering, "_gathered", gather)
    first = ask(llama, task, rank=0, world_size=2)
    assert first == [expected[index] if index in shares[0] else None for index in range(len(EXAMPLES))]
    assert ask(llama, task, rank=1, world_size=2) == expected
    assert not shares[0].keys() & shares[1].keys()
    assert shares[0]
    assert shares[1]


def test_ranks_without_a_process_group_are_refused(llama, make_task):
    with pytest.raises(ValueError, match="world_size=2: expected an initialised"):
        ask(llama, make_task("generate"), rank=0, world_size=2)


def test_the_bar_counts_examples(llama, make_task):
    progress = evaluation_progress(Console(file=io.StringIO()))
    with progress:
        ask(llama, make_task("generate"), progress=progress, label="math GSM8K")
    (bar,) = progress.tasks
    assert (bar.description, bar.completed, bar.total) == ("math GSM8K", len(EXAMPLES), len(EXAMPLES))


def test_nothing_to_ask(llama, make_task):
    assert ask(llama, make_task("generate"), []) == []


def test_another_second_text_is_another_question(make_task):
    task = make_task("classify")
    asked = [answering._fingerprint(task, [Example("a", 0, 0, pair=pair)], 9, 9) for pair in (None, "b", "c", "b")]
    assert len(set(asked)) == 3
    assert asked[1] == asked[3]
