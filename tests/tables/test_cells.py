"""Cells hold what records say, by hand-computed numbers, and nothing where there is none."""

from dataclasses import replace

import pytest

from tombola_cli.records import Record, RecordError, Score, run_id, sources, write_record
from tombola_cli.tables import Cell, filled_rows, find_table
from tombola_cli.tables.text import score_text


@pytest.fixture
def rows(root, compose):
    def read():
        table = find_table("small", root=root)
        return filled_rows(table, root / "results" / "records", root=root, compose=compose)

    return read


def test_mean_std_and_difference(rows, add):
    add("method=ours", "task=one", 0, 0.48)
    add("method=ours", "task=one", 1, 0.52)
    cell = rows()[0].cells[0]
    assert cell.values == {0: 48.0, 1: 52.0}
    assert cell.mean == pytest.approx(50.0)
    assert cell.std == pytest.approx(8**0.5)  # sample: sqrt((4 + 4) / 1)
    assert cell.difference == pytest.approx(0.0)
    assert set(cell.files) == {0, 1}


def test_an_empty_cell_says_so_and_keeps_the_papers_number(rows):
    cell = rows()[0].cells[0]
    assert (cell.mean, cell.std, cell.difference) == (None, None, None)
    assert score_text(cell, paper=True) == "- · 50.0 · -"
    assert score_text(rows()[1].cells[0], paper=True) == "-"
    assert score_text(rows()[2].cells[0], paper=True) == "- · 70.5 · -"


def test_one_seed_has_no_std(rows, add):
    add("method=ours", "task=one", 0, 0.481)
    assert score_text(rows()[0].cells[0], paper=True) == "48.1 (1) · 50.0 · −1.9"
    assert score_text(rows()[0].cells[0], paper=False) == "48.1 (1)"


def test_a_seed_that_diverged_is_shown_and_not_counted(rows, add):
    add("method=ours", "task=one", 0, 0.5)
    add("method=ours", "task=one", 1, 0.0, status="diverged")
    assert score_text(rows()[0].cells[0], paper=True) == "50.0 (1, seed 1 diverged) · 50.0 · +0.0"
    assert 1 in rows()[0].cells[0].files


def test_a_cell_of_failures_shows_them(rows, add):
    add("method=ours", "task=one", 0, 0.0, status="diverged")
    add("method=ours", "task=one", 1, 0.0, status="failed")
    assert score_text(rows()[0].cells[0], paper=False) == "diverged, failed"


def test_a_later_success_wins_over_an_earlier_failure(rows, add):
    add("method=ours", "task=one", 0, 0.0, status="failed")
    add("method=ours", "task=one", 0, 0.3)
    add("method=ours", "task=one", 0, 0.0, status="failed")
    cell = rows()[0].cells[0]
    assert cell.values == {0: 30.0}
    assert cell.files[0].name.endswith(".1.json")


def test_another_setting_is_another_run(rows, add):
    add("method=other", "task=one", 0, 0.3)
    assert rows()[1].cells[0].values == {}
    add("method=other", "task=one", 0, 0.4, "training.lr=0.5")
    assert rows()[1].cells[0].values == {0: 40.0}


def test_a_record_without_the_score_is_not_a_zero(rows, add, root):
    add("method=ours", "task=one", 0, 0.5)
    file = next((root / "results" / "records").iterdir())
    file.write_text(file.read_text().replace('"accuracy"', '"f1"'))
    assert score_text(rows()[0].cells[0], paper=False) == "no such score"


def test_the_mean_counts_seeds_that_have_every_column(rows, add):
    for seed, one, two in ((0, 0.4, 0.6), (1, 0.5, None)):
        add("method=ours", "task=one", seed, one)
        if two is not None:
            add("method=ours", "task=two", seed, two)
    mean = rows()[0].mean
    assert isinstance(mean, Cell)
    assert mean.values == {0: pytest.approx(50.0)}
    assert score_text(mean, paper=True) == "50.0 (1) · 55.0 · −5.0"


def test_a_loss_is_not_a_percentage(root, compose, add):
    path = root / "conf" / "table" / "small.yaml"
    path.write_text(path.read_text().replace("metric: accuracy", "metric: loss"))
    add("method=ours", "task=one", 0, 0.5)
    file = next((root / "results" / "records").iterdir())
    file.write_text(file.read_text().replace('"accuracy"', '"loss"'))
    table = find_table("small", root=root)
    filled = filled_rows(table, root / "results" / "records", root=root, compose=compose)
    assert filled[0].cells[0].values == {0: 0.5}


def test_a_broken_record_is_an_error_and_not_a_gap(rows, add, root):
    add("method=ours", "task=one", 0, 0.5)
    next((root / "results" / "records").iterdir()).write_text("{}")
    with pytest.raises(RecordError, match="the field 'id' is missing"):
        rows()


OVER = """
title: Means over splits
paper: {numbers: paper.csv, table: T1}
overrides: [model=small]
seeds: [0, 1]
columns:
  - {label: One, over: {field: task, values: [one, two]}, score: {task: flan, split: each, metric: rouge_l}}
  - {label: Two, over: {field: null, values: [one, two]}, score: {task: flan, split: each, metric: rouge_l},
     overrides: [task=all]}
mean: null
rows: [{label: Ours, overrides: [method=ours]}]
notes: []
"""


@pytest.fixture
def over(root, compose, rows):
    (root / "conf" / "table" / "small.yaml").write_text(OVER)

    def write(seed, task, **values):
        """The record of one run with a score for each split."""
        config = compose(["method=ours", "model=small", f"task={task}", f"seed={seed}"])
        record = Record(
            id=run_id(config, sources(config)),
            started="2026-01-31T12:00:00+00:00",
            finished="2026-01-31T12:05:00+00:00",
            status="ok",
            config=config,
            scores=[Score("flan", split, "rouge_l", value, 10) for split, value in values.items()],
            cost={
                **dict.fromkeys(("trainable", "head", "stored_bytes"), 0),
                **{"seconds": {}, "tokens_per_second": None, "peak_bytes": None},
            },
            provenance=dict.fromkeys(("commit", "dirty", "packages", "hardware", "model", "data", "command")),
        )
        write_record(root / "results" / "records", record)

    return write


def test_a_column_over_runs_is_their_unweighted_mean(over, rows):
    over(0, "one", one=0.2)
    over(0, "two", two=0.6)
    cell = rows()[0].cells[0]
    assert cell.values == {0: pytest.approx(40.0)}
    assert list(cell.files) == ["0.1", "0.2"]
    assert score_text(cell, paper=True) == "40.0 (1) · 50.0 · −10.0"


def test_a_column_over_runs_is_no_mean_of_a_part(over, rows):
    over(0, "one", one=0.2)
    over(1, "one", one=0.3)
    over(1, "two", two=0.5)
    cell = rows()[0].cells[0]
    assert cell.values == {1: pytest.approx(40.0)}
    assert score_text(cell, paper=False) == "40.0 (1, seed 0 1 of 2 scores)"


def test_a_column_over_the_splits_of_one_run(over, rows):
    over(0, "all", one=0.2, two=0.4)
    over(1, "all", one=0.2)
    cell = rows()[0].cells[1]
    assert cell.values == {0: pytest.approx(30.0)}
    assert list(cell.files) == [0, 1]
    assert cell.statuses == {1: "1 of 2 scores"}


def test_records_of_local_data_are_found_without_the_data(root, compose, add, tmp_path):
    """A record of a folder's files, and a table that is rendered where the folder is not."""
    (tmp_path / "rows.tsv").write_text("a")

    def of_a_folder(overrides):
        config = compose(overrides)
        config["task"] |= {"data_dir": str(tmp_path), "files": ["rows.tsv"]}
        return config

    config = of_a_folder(["method=ours", "model=small", "task=one", "seed=0"])
    found = sources(config)
    record = replace(add("method=ours", "task=one", 0, 0.5), id=run_id(config, found), config=config)
    write_record(root / "results" / "records", record)
    path = root / "conf" / "table" / "small.yaml"
    path.write_text(f"{path.read_text()}data: {{one: '{found['data']}', two: 'sha256:00'}}\n")
    (tmp_path / "rows.tsv").unlink()
    table = find_table("small", root=root)
    filled = filled_rows(table, root / "results" / "records", root=root, compose=of_a_folder)
    assert filled[0].cells[0].values == {0: 50.0}
    assert filled[0].cells[1].values == {}
