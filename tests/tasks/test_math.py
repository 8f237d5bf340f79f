import json
import math

import pytest

from tombola.tasks import DataError, Math, encode, prompt_ids
from tombola.tasks.alpaca import alpaca_prompt
from tombola.tasks.math_answers import (
    letter_as_paper,
    letter_strict,
    number_as_paper,
    number_strict,
)
from tombola.tasks.responses import ENDS_RESPONSE


def test_rows_and_suites(math_folder):
    paper = Math(data_dir=str(math_folder), validation_rows=4)
    clean = Math(data_dir=str(math_folder), validation_rows=4, suite="clean")
    assert list(paper.tests()) == ["MultiArith", "GSM8K", "AddSub", "AQuA", "SingleEq", "SVAMP"]
    assert list(clean.tests()) == ["GSM8K", "AQuA", "SVAMP", "MAWPS"]
    assert (len(paper.train()), len(paper.validation()), paper.data_note) == (26, 4, None)
    assert [example.gold for example in paper.tests()["AQuA"]] == list("ABCDE")
    assert [example.gold for example in paper.tests()["GSM8K"]] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_some_of_a_suites_sets(math_folder):
    chosen = Math(data_dir=str(math_folder), validation_rows=4, suite="clean", test_sets=["MAWPS", "AQuA"])
    assert list(chosen.tests()) == ["AQuA", "MAWPS"]


def test_training_on_test_rows_is_noted(data_folder):
    """LLM-Adapters' earlier training file was drawn from the test files; the counts are those of its data card."""
    task = Math(data_dir=str(data_folder / "llm_adapters"), train_file="ft-training_set/math_data.json.gz")
    told = "MultiArith 491 of 600, GSM8K 1055 of 1319, AddSub 330 of 395, AQuA 203 of 254, SingleEq 425 of 508"
    assert task.data_note.endswith(f"test rows that are training rows too: {told}, SVAMP 800 of 1000")


def test_training_keeps_its_whitespace_whatever_asks(math_folder):
    for variant in ("train", "eval_original", "eval_matched"):
        task = Math(data_dir=str(math_folder), validation_rows=4, template_variant=variant)
        question = json.loads((math_folder / "dataset/gsm8k/test.json").read_text())[0]["instruction"]
        assert task.tests()["GSM8K"][0].prompt == alpaca_prompt(question, variant)
        assert all("request.  \n" in example.prompt for example in [*task.train(), *task.validation()])


def test_loss_on_all_tokens_with_the_end_if_it_fits(math_folder, byte_tokenizer):
    task = Math(data_dir=str(math_folder), validation_rows=4)
    example = task.train()[0]
    (row,) = encode(task, [example], byte_tokenizer, max_length=1000)
    (cut,) = encode(task, [example], byte_tokenizer, max_length=100)
    assert byte_tokenizer.decode(row["input_ids"]) == example.prompt + example.target + "<eos>"
    assert row["labels"] == row["input_ids"]
    assert (len(cut["input_ids"]), cut["input_ids"]) == (100, row["input_ids"][:100])


def test_loss_on_the_answer(math_folder, byte_tokenizer):
    task = Math(data_dir=str(math_folder), validation_rows=4, train_on="answer")
    (row,) = encode(task, task.train()[:1], byte_tokenizer, max_length=1000)
    told = byte_tokenizer.decode([label for label in row["labels"] if label != -100])
    assert told == f" {task.train()[0].target}<eos>"  # " I" is one token: the last space of the prompt goes with it


def test_a_matched_prompt_has_the_tokens_of_training(math_folder, byte_tokenizer):
    task = Math(data_dir=str(math_folder), validation_rows=4, template_variant="eval_matched")
    example = task.validation()[0]
    (row,) = encode(task, [example], byte_tokenizer, max_length=1000)
    (ids,) = prompt_ids([example], task.format, byte_tokenizer)
    assert row["input_ids"][: len(ids)] == ids


def test_both_readings_are_measured(math_folder):
    task = Math(data_dir=str(math_folder), validation_rows=4)
    letters = task.tests()["AQuA"]
    answers = ["The answer is A.", "Answer: B", "According to x, the answer is C.", "D", "no"]
    assert task.measure(letters, answers) == {"accuracy_as_paper": 2 / 5, "accuracy_strict": 4 / 5}
    numbers = task.tests()["GSM8K"]
    answers = ["The answer is 0.", "1 it is", "The answer is 2. I am 90% sure.", "none", "The answer is 4"]
    assert task.measure(numbers, answers) == {"accuracy_as_paper": 3 / 5, "accuracy_strict": 3 / 5}


def test_generation_is_the_papers_unless_asked_otherwise(math_folder):
    paper, greedy = (
        Math(data_dir=str(math_folder), validation_rows=4, **options) for options in ({}, {"num_beams": 1})
    )
    assert (paper.generation.num_beams, paper.generation.max_new_tokens) == (4, 256)
    assert greedy.generation.num_beams == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"role": "encoder"}, DataError, "expected a model of role decoder, got encoder"),
        ({"suite": "dirty"}, DataError, r"task\.suite=dirty: expected one of paper, clean"),
        ({"test_sets": ["MAWPS"]}, DataError, r"task\.test_sets=\[MAWPS\]; expected some of MultiArith, GSM8K"),
        ({"train_on": "none"}, DataError, r"task\.train_on=none: expected all or answer"),
        ({"template_variant": "eval"}, ValueError, "'eval': expected train, eval_original or eval_matched"),
        ({"validation_rows": 30}, DataError, "validation_rows is 30; expected 0 to 29 of 30 rows"),
        ({"train_file": "other.json"}, DataError, r"no file .*other\.json"),
    ],
)
def test_wrong_options(math_folder, options, error, message):
    with pytest.raises(error, match=message):
        Math(data_dir=str(math_folder), **options)


@pytest.mark.parametrize(
    ("folder", "answer", "wanted"),
    [
        ("gsm8k", "many", "a number"),
        ("gsm8k", "nan", "a number"),
        ("AQuA", "F", "a letter A to E"),
        ("AQuA", "7", "a letter"),
    ],
)
def test_gold_answers_that_cannot_be_scored(math_folder, folder, answer, wanted):
    path = math_folder / "dataset" / folder / "test.json"
    rows = json.loads(path.read_text())
    rows[2]["answer"] = answer
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=f"{folder}/test.json row 2 has answer = '{answer}'; expected {wanted}"):
        Math(data_dir=str(math_folder), validation_rows=4)


def test_nothing_to_measure(math_folder):
    with pytest.raises(DataError, match="no examples to measure"):
        Math(data_dir=str(math_folder), validation_rows=4).measure([], [])


def test_the_default_config_works_on_the_published_files(repository, data_folder):
    from omegaconf import OmegaConf

    from tombola.tasks import load_task

    config = OmegaConf.to_container(OmegaConf.load(repository / "conf/task/math.yaml"), resolve=True)
    task = load_task({**config, "data_dir": str(data_folder / "llm_adapters")}, role="decoder")
    assert {name: len(examples) for name, examples in task.tests().items()} == config["rows"]["test"]
    assert "training rows too" not in task.data_note
    assert "math_human_10k.jsonl.gz, which stands in for ft-training_set/math_10k.json" in task.data_note
    assert (len(task.train()), len(task.validation())) == (10201 - 120, 120)
    assert all(isinstance(example.gold, str) or math.isfinite(example.gold) for example in task.validation())


def test_greedy_answers_may_stop_where_no_reading_goes_on(math_folder):
    assert Math(data_dir=str(math_folder), validation_rows=4, num_beams=1).generation.stop_strings == (ENDS_RESPONSE,)
    assert (
        Math(data_dir=str(math_folder), validation_rows=4).generation.stop_strings == ()
    )  # four beams: an end makes room for others


@pytest.mark.parametrize(
    "before", ["It is 12. The answer is 3.", "The answer is B", "B", "no number", "#### 1,200\n\n"]
)
@pytest.mark.parametrize("after", ["\n 7. The answer is 8", " A", ""])
def test_what_follows_another_prompt_is_read_by_nobody(before, after):
    stopped = before + ENDS_RESPONSE
    for read in (number_as_paper, number_strict, letter_as_paper, letter_strict):
        assert read(stopped) == read(stopped + after)
