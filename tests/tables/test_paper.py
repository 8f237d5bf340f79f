"""The transcribed numbers: their form, their means, and the misprints that are the papers' own."""

import statistics
from collections import defaultdict

import pytest

from tombola_cli.tables import PaperError, printed_numbers

# (file, table, row): what the printed numbers average to, where the paper prints another mean.
MISPRINTED_MEANS = {
    ("bola", "T1", "Full-FT"): 85.84,  # printed 85.9
    ("bola", "T3", "DoRA"): 85.20,  # printed 84.1: with its true mean, DoRA is ahead of BoLA
    ("pilora", "T2", "PiLoRA"): 90.08,  # printed 90.05
}
UNITS = {"percent", "points", "parameters", "layers", "percent of parameters"}
FILES = ["bola", "rigsa", "sparse_adapters", "pilora", "partial_lora"]
TABLES = [("bola", "T1", 5), ("bola", "T2", 5), ("bola", "T3", 5), ("pilora", "T1", 12), ("pilora", "T2", 6)]
TABLES += [("pilora", "T3", 6), ("pilora", "T4", 3)]


@pytest.mark.parametrize(("file", "table", "rows"), TABLES)
def test_means_are_those_of_the_numbers_or_known_misprints(repository, file, table, rows):
    found = defaultdict(dict)
    for (row, column), number in printed_numbers(repository / "results" / "paper" / f"{file}.csv", table).items():
        if number.percent is not None:
            found[row][column] = number
    assert len(found) == rows
    for row, numbers in found.items():
        printed = numbers.pop("avg")
        mean = statistics.mean(number.percent for number in numbers.values())
        rounding = 0.5 * 10 ** -len(printed.text.partition(".")[2]) + 1e-9
        known = MISPRINTED_MEANS.get((file, table, row))
        if known is None:
            assert mean == pytest.approx(printed.percent, abs=rounding), row
        else:
            assert mean == pytest.approx(known, abs=0.005), row
            assert abs(mean - printed.percent) > rounding, f"{row} is no misprint"


@pytest.mark.parametrize("file", FILES)
def test_every_value_has_a_known_unit_and_reads_as_a_number(repository, file):
    path = repository / "results" / "paper" / f"{file}.csv"
    lines = [line for line in path.read_text().splitlines()[1:] if line]
    tables = {line.split(",")[0] for line in lines}
    numbers = [number for table in tables for number in printed_numbers(path, table).values()]
    assert len(numbers) == len(lines)
    assert {number.unit for number in numbers} <= UNITS
    assert all(float(number.text.rstrip("kM")) is not None for number in numbers)


def test_counts_are_shown_and_not_computed_with(repository):
    numbers = printed_numbers(repository / "results" / "paper" / "bola.csv", "T1")
    assert (numbers["LoRA", "params"].text, numbers["LoRA", "params"].percent) == ("0.3M", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", r"x\.csv: line 1: expected the header table,row,column,value,unit"),
        ("table,row,column,value,unit\nT1,a,b,1\n", r"x\.csv: line 2: expected 5 fields, got 4"),
        ("table,row,column,value,unit\nT1,a,b,1,c\nT1,a,b,2,c\n", r"x\.csv: line 3: T1, a, b comes twice"),
        ("table,row,column,value,unit\nT2,a,b,1,c\n", r"x\.csv: no table 'T1'"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(PaperError, match=message):
        printed_numbers(tmp_path / "x.csv", "T1")
