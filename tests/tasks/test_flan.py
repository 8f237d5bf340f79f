import copy
import json

import pytest
from datasets import Dataset
from omegaconf import OmegaConf
from tokenizers.processors import TemplateProcessing

from tombola.tasks import DataError, Flan, encode, load_task, prompt_ids

PAPER = {"held_in": ["one", "two"], "held_out": ["three"]}
REPO, URL = "org/flat", "hf://datasets/org/flat@main"


def local(folder, **options):
    return Flan(data_dir=str(folder), **{"task_name": "one", **options})


def test_one_task_is_its_own_rows(flan_folder):
    task = local(flan_folder)
    assert (len(task.train()), len(task.validation()), list(task.tests())) == (6, 3, ["one"])
    example = task.tests()["one"][1]
    assert (example.prompt, example.target, example.gold) == ("test one 1?", " answer 1", "answer 1")
    assert "no number of the paper" in task.data_note


def test_lists_are_mixtures_that_are_tested_task_by_task(flan_folder):
    task = local(flan_folder, task_name="held_in", test_on="all")
    assert len(task.train()) == 12
    assert {name: len(examples) for name, examples in task.tests().items()} == {"one": 2, "two": 2, "three": 2}
    assert list(local(flan_folder, task_name="held_out").tests()) == ["three"]
    assert list(local(flan_folder, test_on="three").tests()) == ["three"]


def test_the_text_is_source_space_target_and_its_end_without_special_tokens(flan_folder, byte_tokenizer):
    tokenizer = copy.deepcopy(byte_tokenizer)  # one that begins every text, as Llama's does
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 0)])
    task = local(flan_folder)
    example = task.train()[0]
    (row,) = encode(task, [example], tokenizer, max_length=100)
    assert tokenizer.decode(row["input_ids"]) == "train one 0? answer 0<eos>"
    assert tokenizer.decode([label for label in row["labels"] if label != -100]) == " answer 0<eos>"
    (asked,) = prompt_ids([example], task.format, tokenizer)
    assert tokenizer.decode(asked) == "train one 0?"


def test_what_is_too_long_loses_its_beginning(flan_folder, byte_tokenizer):
    task, cut = local(flan_folder, prompt_tokens=5), []
    example = task.train()[0]
    (row,) = encode(task, [example], byte_tokenizer, max_length=14, on_cut=cut.append)
    assert byte_tokenizer.decode(row["input_ids"]) == "e 0? answer 0<eos>"  # 13 bytes and the end
    assert (len(row["input_ids"]), len(row["labels"]), cut) == (14, 14, [1])
    (asked,) = prompt_ids([example], task.format, byte_tokenizer)
    assert byte_tokenizer.decode(asked) == "ne 0?"


def test_the_score_is_the_mean_over_examples(flan_folder):
    task = local(flan_folder)
    examples = task.tests()["one"]
    assert task.measure(examples, ["answer 0", "no"]) == {"rouge_l": 0.5}
    assert task.measure(examples, ["Answer 0.", "an answer"]) == {"rouge_l": pytest.approx((1 + 2 / 4) / 2)}
    with pytest.raises(DataError, match="no examples to measure"):
        task.measure([], [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role": "encoder"}, "expected a model of role decoder, got encoder"),
        ({"task_name": None}, r"type task\.task_name=NAME: held_in, held_out, all, or one of one, two, three"),
        ({"task_name": "thre"}, r"task\.task_name=thre: there is no such task; did you mean three\?"),
        ({"test_on": "x"}, r"task\.test_on=x: there is no such task; expected held_in, held_out, all, or one of one"),
    ],
)
def test_wrong_options(flan_folder, options, message):
    with pytest.raises(DataError, match=message):
        local(flan_folder, **options)


def test_rows_that_are_missing_are_told_by_number(flan_folder):
    listed = json.loads((flan_folder / "tasks.json").read_text())
    listed["tasks"][0]["rows"]["test"] = 3
    (flan_folder / "tasks.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match=r"test\.jsonl\.gz has 2 rows of one; tasks\.json beside it says 3"):
        local(flan_folder)
    assert len(local(flan_folder, task_name="two").train()) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"tasks\.json is torn or no JSON"),
        ("[]", r"tasks\.json row 0 is list; expected an object with held_in, held_out, tasks"),
        ('{"held_in": [], "held_out": []}', r"tasks\.json row 0 lacks 'tasks'"),
        ('{"held_in": [], "held_out": [], "tasks": [{"task_name": "one"}]}', r"tasks\.json row 0 lacks 'rows'"),
    ],
)
def test_a_list_of_another_layout(flan_folder, content, message):
    (flan_folder / "tasks.json").write_text(content)
    with pytest.raises(DataError, match=message):
        local(flan_folder)


@pytest.mark.parametrize("field", ["source", "target"])
def test_a_row_without_text_is_refused(flan_folder, field, write_rows):
    rows = [{"task_name": "one", "source": "a", "target": "b"}] * 5
    write_rows(flan_folder / "train.jsonl.gz", [*rows, {**rows[0], field: " "}])
    with pytest.raises(DataError, match=rf"train\.jsonl\.gz row 5 has an empty {field}; expected text"):
        local(flan_folder)


def flat(**changes):
    rows = []
    for name in ("one", "two", "three"):
        for split, count in (("train", 4), ("validation", 2), ("test", 3)):
            rows += [
                {"source": f"{name} {n}?", "target": "yes", "task_name": name, "split": split} for n in range(count)
            ]
    for number, change in changes.items():
        rows[int(number[1:])] |= change
    return Dataset.from_list([{**row, "task_source": "P3"} for row in rows])


def of_hub(**options):
    return Flan(**{"url": URL, **PAPER, "task_name": "one", **options})


def test_the_hubs_flat_table_is_sorted_by_its_splits_and_its_commit_is_told(hub_cache):
    commit = hub_cache(REPO, {"data/train-00000-of-00001.parquet": flat()})
    task = of_hub(test_on="held_out")
    assert (len(task.train()), len(task.validation())) == (4, 2)
    assert [example.prompt for example in task.tests()["three"]] == ["three 0?", "three 1?", "three 2?"]
    assert task.data_note == f"rows of {URL} at commit {commit}"


def test_rows_of_the_hub_without_text_are_counted(hub_cache):
    table = flat(_0={"target": " "}, _1={"source": None}, _9={"target": ""})  # the last one is of a task not asked for
    hub_cache(REPO, {"data/train-00000-of-00001.parquet": table})
    task = of_hub()
    assert len(task.train()) == 2
    assert task.data_note.endswith("; 2 rows without a source or a target are left out")


def test_a_split_of_another_name(hub_cache):
    hub_cache(REPO, {"data/train-00000-of-00001.parquet": flat(_2={"split": "dev"})})
    with pytest.raises(
        DataError, match=r"main row 2 of those of one has split = 'dev'; expected train, validation, test"
    ):
        of_hub()


def test_a_task_that_the_hub_does_not_have(hub_cache):
    untrained = flat().filter(lambda row: row["task_name"] != "two" or row["split"] == "test")
    hub_cache(REPO, {"data/train-00000-of-00001.parquet": untrained})
    with pytest.raises(DataError, match=r"hf://datasets/org/flat@main has no train rows of two; expected some in data"):
        of_hub(task_name="two")
    with pytest.raises(DataError, match=r"cannot be read .*; expected .*split, and rows with task_name in \['four'\]"):
        of_hub(task_name="four", held_in=["four"])


def test_without_a_source():
    with pytest.raises(DataError, match=r"no pinned source: type task\.data_dir=DIR, a folder with tasks\.json"):
        Flan(**PAPER, task_name="one")


def test_the_default_config_works_on_the_published_folder(repository, data_folder):
    config = OmegaConf.to_container(OmegaConf.load(repository / "conf/task/flan/flan20.yaml"), resolve=True)
    task = load_task({**config, "data_dir": str(data_folder / "flan20"), "task_name": "all"}, role="decoder")
    tests = task.tests()
    assert (len(task.train()), len(task.validation())) == (8606, 1444)
    assert (len(tests), sum(map(len, tests.values()))) == (30, 2722)
    right = [
        task.measure(examples, [example.gold for example in examples])["rouge_l"] * len(examples)
        for examples in tests.values()
    ]
    assert sum(right) == pytest.approx(2721)  # one target, "**" of reddit_tifu, has no word
