import hashlib
import json

import numpy as np
import pytest

from tombola.tasks import DataError, Example
from tombola.tasks.llm_adapters import Files, choose_train_file, chosen_sets, overlap, parts_missing, split

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
        Files("t", str(tmp_path), None, {}).rows("a.json")


def test_a_download_is_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    content = json.dumps([{"instruction": "a", "input": "", "output": "c", "answer": "d"}]).encode()
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json has SHA-256 [0-9a-f]{64}, expected abc"):
        Files("t", None, tmp_path.as_uri(), {"a.json": "abc"}).rows("a.json")
    right = hashlib.sha256(content).hexdigest()
    assert len(Files("t", None, tmp_path.as_uri(), {"a.json": right}).rows("a.json")) == 1


def test_the_first_of_several_files(tmp_path):
    (tmp_path / "b").write_text("")
    assert Files("t", str(tmp_path), None, {}).first(["a", "b"]) == "b"
    assert Files("t", str(tmp_path), None, {}).first(["a", "c"]) == "a"
    assert Files("t", None, "https://nowhere.invalid", {}).first(["a", "b"]) == "a"


def test_chosen_sets_keep_their_order():
    assert chosen_sets("t", None, ("X", "Y", "Z")) == ["X", "Y", "Z"]
    assert chosen_sets("t", ["Z", "X"], ("X", "Y", "Z")) == ["X", "Z"]


@pytest.mark.parametrize(("wanted", "shown"), [([], ""), (["X", "W"], "X, W")])
def test_sets_that_are_not_there(wanted, shown):
    with pytest.raises(DataError, match=rf"t: task\.test_sets=\[{shown}\]; expected some of X, Y"):
        chosen_sets("t", wanted, ("X", "Y"))


def test_test_rows_that_are_training_rows_too_are_counted():
    """Whatever the whitespace of either prompt, and whatever the test row's answer."""
    train = [Example("Add 2 and 3.  \n   \n", "5", 5.0), Example("Add 4 and 5.", "9", 9.0)]
    tests = {
        "X": [Example("add 2 and 3\n\n", "6", 6.0), Example("Add 2 and 33.", "35", 35.0)],
        "Y": [Example("Add 4 to 5.", "9", 9.0)],
    }
    assert overlap(train, tests) == "test rows that are training rows too: X 1 of 2"
    assert overlap(train[1:], tests) is None


def test_missing_parts_are_named_where_rows_say_whence_they_are():
    folders = {"X": "x", "Y": "y", "Z": "z"}
    assert parts_missing([{"dataset": "y"}, {"dataset": "y"}], folders) == ["X", "Z"]
    assert parts_missing([{}, {}], folders) == []


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
