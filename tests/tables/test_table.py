"""A table's YAML is read whole, and a wrong one is refused by file and field."""

import pytest
import yaml

from tombola_cli.tables import TableError, find_table, load_table, row_commands


def test_runs_are_distinct_and_start_with_their_groups(root):
    table = find_table("small", root=root)
    other = table.rows[1]
    assert table.runs(other) == [
        ("method=other", "model=small", "task=one", "training.lr=0.5"),
        ("method=other", "model=small", "task=two", "training.lr=0.5"),
    ]
    assert table.runs(table.rows[2]) == []
    assert [row.seeds for row in table.rows] == [(0, 1), (0,), (0, 1)]


def test_columns_of_one_run_ask_for_it_once(root):
    def share(data):
        for column in data["columns"]:
            column["overrides"] = ["task=both"]

    table = load_table(_edited(root, share))
    assert table.runs(table.rows[0]) == [("method=ours", "model=small", "task=both")]


def test_a_column_over_a_field_has_a_run_and_a_split_for_each_value(root):
    def spread(data):
        data["columns"] = [data["columns"][0]]
        data["columns"][0]["score"]["split"] = "each"
        data["columns"][0]["over"] = {"field": "task.part", "values": ["a", "b"]}

    table = load_table(_edited(root, spread))
    row, (column,) = table.rows[0], table.columns
    assert table.runs(row) == [("method=ours", "model=small", "task=one", f"task.part={name}") for name in "ab"]
    assert [part.score.split for part in column.parts()] == ["a", "b"]
    assert row_commands(table, row) == [
        "python train.py -m method=ours model=small task=one task.part=a,b seed=0,1 table=small"
    ]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda data: data["columns"][0].update(over={"field": None, "values": ["a"]}),
            r"small\.yaml: columns\[0\]: `over` and `split: each` belong together, got split 'test'",
        ),
        (
            lambda data: data["columns"][0]["score"].update(split="each"),
            r"columns\[0\]: `over` and `split: each` belong together, got split 'each'",
        ),
        (
            lambda data: data["columns"][0].update(over={"field": "x", "values": []}),
            r"columns\[0\]: over: values: expected at least one",
        ),
        (
            lambda data: data["columns"][0].update(over={"values": "ab"}),
            r"columns\[0\]: over: values: expected list, got 'ab'",
        ),
        (lambda data: data.pop("seeds"), r"small\.yaml: seeds: expected list, it is missing"),
        (lambda data: data.update(titel="x"), r"small\.yaml: unknown field 'titel'; expected title, paper"),
        (lambda data: data.update(notes="x"), r"small\.yaml: notes: expected list, got 'x'"),
        (lambda data: data.update(paper={"table": "T1"}), r"small\.yaml: paper: numbers: expected str, it is missing"),
        (
            lambda data: data["columns"][1]["score"].pop("metric"),
            r"small\.yaml: columns\[1\]: score: metric: expected str, it is missing",
        ),
        (
            lambda data: data["rows"].append("BoLA"),
            r"small\.yaml: rows\[3\]: expected the fields label, .*, got 'BoLA'",
        ),
        (
            lambda data: data["rows"][2].pop("note"),
            r"small\.yaml: rows\[2\]: a row without overrides needs a note that says why it cannot be run",
        ),
    ],
)
def test_a_wrong_field_is_named(root, edit, message):
    with pytest.raises(TableError, match=message):
        load_table(_edited(root, edit))


def test_an_unknown_table_lists_those_there_are(root):
    with pytest.raises(TableError, match=r"there is no table 'smal'; conf/table has small"):
        find_table("smal", root=root)


def _edited(root, edit):
    path = root / "conf" / "table" / "small.yaml"
    data = yaml.safe_load(path.read_text())
    edit(data)
    path.write_text(yaml.safe_dump(data))
    return path
