"""docs/tasks.md lists every YAML of conf/task, and says so when it does not."""

import pytest

from tombola_cli.tables import tasks_main, tasks_markdown

TASK = {
    "name": "group/one",
    "licence": "MIT",
    "version": 2,
    "_target_": "tombola.tasks.One",
    "kind": "classify",
    "repo": "org/data",
    "revision": "0123456789abcdef",
    "url": "hf://datasets/org/data@0123456789abcdef",
    "metrics": ["accuracy", "f1"],
    "rows": {"train": 12_000, "validation": 0, "test": {"test": 300}},
}


def lines(*tasks):
    return [line for line in tasks_markdown(tasks).splitlines() if line.startswith("| ")][2:]


def test_a_task_is_a_line():
    assert lines(TASK) == [
        "| `group/one` | classify | [org/data](https://huggingface.co/datasets/org/data) @ 0123456789ab "
        "| 12,000 / 0 / 300 | accuracy, f1 | MIT | 2 |"
    ]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"_target_": None}, "| *group/one* |"),
        ({"rows": {"train": None, "validation": 5, "test": {"A": 1, "B": 20}}}, "| - / 5 / A 1, B 20 |"),
        ({"repo": None, "url": "https://x.org/a"}, "| <https://x.org/a> |"),
        ({"repo": None, "url": None}, "| embedded |"),
        ({"url": None, "revision": "v1"}, "| org/data @ v1 |"),
        ({"url": "https://raw.githubusercontent.com/org/data/x"}, "| [org/data](https://github.com/org/data) @ 0123"),
        ({"held_in": ["a", "b"], "held_out": ["c"]}, "300, for each of 3 tasks at most |"),
        ({"licence": "MIT | other"}, "| MIT \\| other |"),
    ],
)
def test_what_differs(change, part):
    (line,) = lines({**TASK, **change})
    assert part in line


def test_a_task_that_is_yet_to_come_is_explained():
    assert "yet to come" not in tasks_markdown([TASK])
    assert "yet to come" in tasks_markdown([{**TASK, "_target_": None}])


def test_a_task_without_a_licence_is_refused():
    with pytest.raises(
        ValueError, match=r"conf/task/group/one\.yaml: licence: missing; write `not stated` where none is"
    ):
        tasks_markdown([{**TASK, "licence": None}])


@pytest.fixture
def small(tmp_path):
    (tmp_path / "docs").mkdir()
    for group in ("method", "model", "task/group", "training", "recipe", "launch", "log"):
        (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf/task/group/one.yaml").touch()

    def run(*argv, **changes):
        return tasks_main(argv, root=tmp_path, compose=lambda words: {"task": {**TASK, **changes}, "words": words})

    return run


def test_the_file_is_written_and_checked(small, tmp_path, capsys):
    assert small("--check") == 1
    assert small() == 0
    assert small("--check") == 0
    assert "`group/one`" in (tmp_path / "docs/tasks.md").read_text()
    assert small("--check", version=3) == 1
    assert "docs/tasks.md: not what conf/task gives; run `make tables`" in capsys.readouterr().err
    assert small(licence="") == 1
    assert "licence: missing" in capsys.readouterr().err


def test_the_committed_file_is_current():
    assert tasks_main(["--check"]) == 0
