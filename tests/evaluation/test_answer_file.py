import json

import pytest

from tombola.evaluation import AnswerFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers" / "math-test.jsonl"


def test_answers_come_back_as_they_were(path):
    answers = {0: "a line\nand “another”", 2: 7, 1: 0.1 + 0.2, 3: ""}
    file = AnswerFile(path, "adapter")
    assert file.begin("questions") == {}
    file.append(answers)
    assert AnswerFile(path, "adapter").begin("questions") == answers
    assert len(path.read_text().splitlines()) == 5


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_counts_as_not_written(path, cut):
    file = AnswerFile(path, "adapter")
    file.begin("questions")
    file.append({0: "first"})
    file.append({1: "second"})
    path.write_bytes(path.read_bytes()[:-cut])
    again = AnswerFile(path, "adapter")
    assert again.begin("questions") == {0: "first"}
    again.append({1: "second"})  # the torn tail is gone, so the line is whole
    assert AnswerFile(path, "adapter").begin("questions") == {0: "first", 1: "second"}


@pytest.mark.parametrize(("of", "questions"), [("other adapter", "questions"), ("adapter", "other questions")])
def test_answers_of_other_weights_or_to_other_questions_are_not_taken(path, of, questions):
    file = AnswerFile(path, "adapter")
    file.begin("questions")
    file.append({0: "old"})
    other = AnswerFile(path, of)
    assert other.begin(questions) == {}
    other.append({1: "new"})
    assert [json.loads(line) for line in path.read_text().splitlines()[1:]] == [{"index": 1, "answer": "new"}]


def test_a_file_torn_in_its_first_line_is_begun_anew(path):
    path.parent.mkdir()
    path.write_text('{"of": "ab')
    assert AnswerFile(path, "adapter").begin("questions") == {}


def test_ranks_write_apart_and_read_together(path):
    first, second = AnswerFile(path, "adapter"), AnswerFile(path, "adapter", rank=1)
    assert first.begin("questions") == second.begin("questions") == {}
    first.append({0: "zero"})
    second.append({1: "one"})
    assert sorted(file.name for file in path.parent.iterdir()) == ["math-test.jsonl", "math-test.rank1.jsonl"]
    for rank in (0, 1):
        assert AnswerFile(path, "adapter", rank=rank).begin("questions") == {0: "zero", 1: "one"}
