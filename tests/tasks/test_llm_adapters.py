import json

import numpy as np
import pytest

from tombola.tasks import DataError
from tombola.tasks.llm_adapters import choose_train_file, rows_of, split

CANDIDATES = ("papers.json", "stand_in.json")


def test_the_papers_file_wins_and_needs_no_note(tmp_path):
    for file in CANDIDATES:
        (tmp_path / file).write_text("[]")
    assert choose_train_file("t", None, CANDIDATES, data_dir=str(tmp_path)) == ("papers.json", None)
    assert choose_train_file("t", None, CANDIDATES, data_dir=None) == ("papers.json", None)


def test_a_stand_in_is_taken_with_a_note(tmp_path):
    (tmp_path / "stand_in.json").write_text("[]")
    file, note = choose_train_file("t", None, CANDIDATES, data_dir=str(tmp_path))
    assert file == "stand_in.json"
    assert note == "trained on stand_in.json, which stands in for papers.json: other rows than the paper's"


def test_a_named_file_is_taken_with_a_note(tmp_path):
    file, note = choose_train_file("t", "mine.json", CANDIDATES, data_dir=str(tmp_path))
    assert file == "mine.json"
    assert "mine.json, which stands in for papers.json" in note


def test_no_training_file_at_all(tmp_path):
    with pytest.raises(
        DataError, match=r"has no papers\.json or stand_in\.json: put one there, or type task\.train_file"
    ):
        choose_train_file("t", None, CANDIDATES, data_dir=str(tmp_path))


def test_a_row_with_an_input_is_refused(tmp_path):
    row = {"instruction": "a", "input": "b", "output": "c", "answer": "d"}
    (tmp_path / "a.json").write_text(json.dumps([{**row, "input": ""}, row]))
    with pytest.raises(DataError, match=r"a\.json row 1 has an input; expected ''"):
        rows_of("t", "a.json", data_dir=str(tmp_path), url=None)


def test_the_held_out_rows_are_those_that_datasets_draws():
    datasets = pytest.importorskip("datasets", reason="the library whose split LLM-Adapters uses is not installed")
    theirs = datasets.Dataset.from_dict({"row": list(range(500))}).train_test_split(120, shuffle=True, seed=42)
    train, held_out = split(list(range(500)), 120)
    assert held_out == theirs["test"]["row"]
    assert train == theirs["train"]["row"]


def test_a_split_is_the_same_every_time_and_loses_nothing():
    train, held_out = split(list(range(50)), 5)
    assert sorted(train + held_out) == list(range(50))
    assert held_out == np.random.default_rng(42).permutation(50)[:5].tolist()


@pytest.mark.parametrize("rows", [-1, 50])
def test_more_held_out_than_there_is(rows):
    with pytest.raises(DataError, match=rf"validation_rows is {rows}; expected 0 to 49 of 50 rows"):
        split(list(range(50)), rows)
