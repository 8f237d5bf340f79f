import gzip
import json

import pytest

from tombola.evaluation.choose import options as option_rows
from tombola.tasks import Commonsense, DataError, encode, load_task, prompt_ids, prompt_text
from tombola.tasks.alpaca import alpaca_prompt

SETS = ["BoolQ", "PIQA", "SIQA", "HellaSwag", "WinoGrande", "ARC-e", "ARC-c", "OBQA"]


def made(folder, **options):
    return Commonsense(data_dir=str(folder), **{"validation_rows": 4, **options})


def rewrite(path, change):
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_rows_and_test_sets(commonsense_folder):
    task = made(commonsense_folder)
    assert list(task.tests()) == SETS
    assert (len(task.train()), len(task.validation())) == (26, 4)
    assert [example.gold for example in task.tests()["PIQA"]] == [f"solution{n % 2 + 1}" for n in range(5)]
    assert task.tests()["ARC-e"][4].choices[4] == task.tests()["ARC-e"][4].target == "the correct answer is answer5"
    assert list(made(commonsense_folder, test_sets=["OBQA", "BoolQ"]).tests()) == ["BoolQ", "OBQA"]


def test_training_keeps_its_whitespace_whatever_asks(commonsense_folder):
    question = json.loads((commonsense_folder / "dataset/piqa/test.json").read_text())[0]["instruction"]
    for variant in ("train", "eval_original", "eval_matched"):
        for answer_by in ("generate", "likelihood"):
            task = made(commonsense_folder, template_variant=variant, answer_by=answer_by)
            assert task.tests()["PIQA"][0].prompt == alpaca_prompt(question, variant)
            assert all("request.  \n" in example.prompt for example in [*task.train(), *task.validation()])


def test_loss_on_all_tokens_or_on_the_answer(commonsense_folder, byte_tokenizer):
    everything, answer = made(commonsense_folder), made(commonsense_folder, train_on="answer")
    example = everything.train()[0]
    (row,) = encode(everything, [example], byte_tokenizer, max_length=1000)
    (part,) = encode(answer, [example], byte_tokenizer, max_length=1000)
    assert byte_tokenizer.decode(row["input_ids"]) == example.prompt + example.target + "<eos>"
    assert row["labels"] == row["input_ids"] == part["input_ids"]
    assert byte_tokenizer.decode([label for label in part["labels"] if label != -100]) == f"{example.target}<eos>"


def test_a_matched_prompt_has_the_tokens_of_training(commonsense_folder, byte_tokenizer):
    task = made(commonsense_folder, template_variant="eval_matched")
    example = task.validation()[0]
    (row,) = encode(task, [example], byte_tokenizer, max_length=1000)
    (ids,) = prompt_ids([example], task.format, byte_tokenizer)
    assert row["input_ids"][: len(ids)] == ids


def test_both_readings_are_measured(commonsense_folder):
    task = made(commonsense_folder)
    examples = task.tests()["SIQA"]  # answer1, 2, 3, 1, 2
    answers = ["the correct answer is answer1", "Answer: Answer2", "answer1 or answer3", "answer1/answer2", "answer22"]
    assert task.measure(examples, answers) == {"accuracy_as_paper": 3 / 5, "accuracy_strict": 2 / 5}


def test_likelihood_asks_each_response_that_the_row_allows(commonsense_folder, byte_tokenizer):
    task = made(commonsense_folder, answer_by="likelihood")
    example = task.tests()["SIQA"][0]
    prompt = prompt_text(example, task.format, byte_tokenizer)
    rows = option_rows(prompt, example.choices, byte_tokenizer, special_tokens=False)
    assert task.answers_by == "choose"
    assert [byte_tokenizer.decode(row.ids) for row in rows] == [
        f"{prompt}the correct answer is answer{number}" for number in (1, 2, 3)
    ]
    assert len({len(row.ids) for row in rows}) == 1  # so that a sum and a mean choose the same


def test_likelihood_is_measured_under_a_name_of_its_own(commonsense_folder):
    task = made(commonsense_folder, answer_by="likelihood")
    assert task.measure(task.tests()["SIQA"], [0, 1, 2, 1, 0]) == {"accuracy_likelihood": 3 / 5}
    assert all(example.choices for example in task.validation())


def test_generation_is_the_papers_unless_asked_otherwise(commonsense_folder):
    paper, greedy = made(commonsense_folder), made(commonsense_folder, num_beams=1)
    assert (paper.answers_by, paper.generation.num_beams, paper.generation.max_new_tokens) == ("generate", 4, 32)
    assert greedy.generation.num_beams == 1


def test_what_is_not_the_papers_data_is_noted(commonsense_folder):
    rebuilt = commonsense_folder / "dataset/hellaswag/test.json"
    rewrite(rebuilt, lambda rows: rows[3].update(instruction=f"[header] A [title] B {rows[3]['instruction']}"))
    assert made(commonsense_folder).data_note is None
    rewrite(rebuilt, lambda rows: rows.pop(3))
    note = "hellaswag/test.json is not the original: its WikiHow rows lack tags such as [title]"
    assert made(commonsense_folder).data_note == f"dataset/{note}"
    assert made(commonsense_folder, test_sets=["PIQA"]).data_note is None
    train = commonsense_folder / "ft-training_set/commonsense_170k.json"
    lines = [json.dumps({**row, "dataset": "boolq"}) for row in json.loads(train.read_text())]
    train.with_name("commonsense_51k.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    train.unlink()
    assert made(commonsense_folder, test_sets=["PIQA"]).data_note == (
        "trained on ft-training_set/commonsense_51k.jsonl.gz, which stands in for "
        "ft-training_set/commonsense_170k.json: other rows than the paper's; "
        "no training rows of PIQA, SIQA, HellaSwag, WinoGrande, ARC-e, ARC-c, OBQA"
    )


def test_a_packed_hellaswag_is_read(commonsense_folder):
    plain = commonsense_folder / "dataset/hellaswag/test.json"
    plain.with_name("test.json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    expected = made(commonsense_folder).tests()["HellaSwag"]
    plain.unlink()
    assert made(commonsense_folder).tests()["HellaSwag"] == expected
    plain.with_name("test.json.gz").unlink()
    with pytest.raises(DataError, match=r"no file .*hellaswag/test\.json; expected dataset/hellaswag/test\.json in"):
        made(commonsense_folder)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"role": "encoder"}, DataError, "expected one of role decoder, got encoder"),
        ({"answer_by": "choose"}, DataError, r"task\.answer_by=choose: expected generate or likelihood"),
        ({"train_on": "none"}, DataError, r"task\.train_on=none: expected all or answer"),
        ({"template_variant": "eval"}, ValueError, "'eval': expected train, eval_original or eval_matched"),
        ({"test_sets": ["ARC"]}, DataError, r"task\.test_sets=\[ARC\]; expected some of BoolQ, PIQA"),
        ({"validation_rows": 30}, DataError, "validation_rows is 30; expected 0 to 29 of 30 rows"),
    ],
)
def test_wrong_options(commonsense_folder, options, error, message):
    with pytest.raises(error, match=message):
        made(commonsense_folder, **options)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("instruction", "Please choose: which?", r"row 2 ends 'Please choose: which\?'; expected \"Answer format: \""),
        ("answer", "answer4", "row 2 has answer = 'answer4'; expected one of its options answer1, answer2, answer3"),
        ("input", "a", "row 2 has an input; expected ''"),
        ("output", None, "row 2 has output = None; expected str"),
    ],
)
def test_rows_that_cannot_be_asked(commonsense_folder, field, value, message):
    rewrite(commonsense_folder / "dataset/social_i_qa/test.json", lambda rows: rows[2].update({field: value}))
    with pytest.raises(DataError, match=rf"social_i_qa/test\.json {message}"):
        made(commonsense_folder)


def test_a_training_row_need_not_say_what_it_allows_unless_it_is_asked(commonsense_folder):
    def strip(rows):
        for row in rows:
            row["instruction"] = "Which?"

    rewrite(commonsense_folder / "ft-training_set/commonsense_170k.json", strip)
    assert len(made(commonsense_folder).validation()) == 4
    with pytest.raises(DataError, match=r"commonsense_170k\.json row \d+ ends 'Which\?'"):
        made(commonsense_folder, answer_by="likelihood")


def test_nothing_to_measure(commonsense_folder):
    with pytest.raises(DataError, match="no examples to measure"):
        made(commonsense_folder).measure([], [])


@pytest.fixture(scope="module")
def published(repository, data_folder):
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.load(repository / "conf/task/commonsense.yaml"), resolve=True)
    return config, load_task({**config, "data_dir": str(data_folder / "llm_adapters")}, role="decoder")


def test_the_default_config_works_on_the_published_files(published):
    config, task = published
    assert {name: len(examples) for name, examples in task.tests().items()} == config["rows"]["test"]
    assert (len(task.train()), len(task.validation())) == (51164 - 120, 120)
    assert "commonsense_51k.jsonl.gz, which stands in for ft-training_set/commonsense_170k.json" in task.data_note
    assert "no training rows of PIQA, HellaSwag, WinoGrande" in task.data_note
    assert "test rows that are training rows too: BoolQ 1 of 3270, ARC-e 2 of 2376" in task.data_note
    assert "hellaswag/test.json.gz is not the original" in task.data_note


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("response", ["the correct answer is {}", "the correct answer is {}.", "{}"])
def test_every_gold_answer_in_the_answer_format_is_right_in_both_readings(published, name, response):
    _, task = published
    examples = task.tests()[name]
    right = task.measure(examples, [response.format(example.gold) for example in examples])
    assert right == {"accuracy_as_paper": 1.0, "accuracy_strict": 1.0}
    others = [next(choice for choice in example.choices if choice != example.target) for example in examples]
    assert task.measure(examples, others) == {"accuracy_as_paper": 0.0, "accuracy_strict": 0.0}


def test_the_checksums_are_those_of_the_published_files(repository, data_folder):
    """The copies under TOMBOLA_DATA are verbatim, but for HellaSwag's."""
    import hashlib

    from omegaconf import OmegaConf

    for task in ("math", "commonsense"):
        checksums = OmegaConf.load(repository / f"conf/task/{task}.yaml").checksums
        contents = {file: (data_folder / "llm_adapters" / file).read_bytes() for file in checksums}
        assert {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()} == checksums
