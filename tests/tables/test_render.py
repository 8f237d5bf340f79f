"""The rendered text, whole; the terminal's; and the script's options and exit statuses."""

import subprocess
import sys

import pytest

from tombola_cli.tables import main

EMPTY = """\
<!-- Rendered by scripts/tables.py from conf/table and results/records: do not edit. -->

# A small table

Cell: mean ± sample standard deviation (number of seeds), then the paper's number and our difference; - where no run \
is. Adapter and Head: trained parameters; Stored: what is saved of both, indices included; Seconds: a run's mean; \
Peak: a run's largest memory.

|  | One | Two | avg | Adapter | Head | Stored MB | Seconds | Peak GiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| Ours | - · 50.0 · - | - · 60.0 · - | - · 55.0 · - | - · 0.3M | - | - | - | - |
| Other | - | - | - | - | - | - | - | - |
| Later | - · 70.5 · - | - | - | - | - | - | - | - |

- Mind the | gap.

Commands:

- Ours: `python train.py -m method=ours model=small task=one,two seed=0,1 table=small`
- Other (another rate): `python train.py -m method=other model=small task=one,two training.lr=0.5 seed=0 table=small`
- Later (method yet to come)
"""


@pytest.fixture
def tables(root, compose):
    return lambda *words: main(words, root=root, compose=compose)


def test_a_table_without_runs(root, tables):
    assert tables() == 0
    assert (root / "results" / "tables" / "small.md").read_text() == EMPTY


def test_a_row_with_runs_links_to_its_records_and_says_what_they_cost(root, tables, add):
    ones = ((0, 0.48, 442_368), (1, 0.52, 443_000))  # files of one content differ by a few bytes
    records = [add("method=ours", "task=one", seed, value, stored_bytes=size) for seed, value, size in ones]
    records.append(
        add(
            "method=ours",
            "task=two",
            0,
            0.6,
            head=30,
            stored_bytes=900_000,
            seconds={"train": 400.0},
            peak_bytes=3 * 2**29,
        )
    )
    tables()
    text = (root / "results" / "tables" / "small.md").read_text()
    assert (
        "| Ours | 50.0 ± 2.8 (2) · 50.0 · +0.0 · [0][r1] [1][r2] | 60.0 (1) · 60.0 · +0.0 · [0][r3] "
        "| 54.0 (1) · 55.0 · −1.0 | 1,000 · 0.3M | 20 to 30 | 0.44 to 0.9 | 200 | 1.50 |\n"
    ) in text
    assert text.endswith("".join(f"[r{n}]: ../records/{one.id}.json\n" for n, one in enumerate(records, start=1)))


def test_links_lead_from_wherever_the_table_is_written(root, tables, add, tmp_path):
    record = add("method=ours", "task=one", 0, 0.5)
    assert tables("--name", "small", "--out", str(tmp_path / "a" / "b.md")) == 0
    assert f"[r1]: ../results/records/{record.id}.json" in (tmp_path / "a" / "b.md").read_text()


def test_check_tells_current_from_stale(root, tables, add, capsys):
    assert tables("--check") == 1
    assert not (root / "results" / "tables").exists()
    assert "results/tables/small.md: not what the records give; run `make tables`" in capsys.readouterr().err
    tables()
    assert tables("--check") == 0
    add("method=ours", "task=one", 0, 0.5)
    assert tables("--check") == 1


def test_records_from_another_folder_go_to_the_terminal(root, tables, add, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")  # too narrow: the numbers stay whole
    add("method=ours", "task=one", 0, 0.5)
    (root / "results" / "records").rename(root / "elsewhere")
    assert tables("--name", "small", "--records", str(root / "elsewhere"), "--out", "-") == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("50.0 (1)", "+0.0", "Peak GiB", "1,000"))
    assert "[r1]" not in shown
    assert not (root / "results" / "tables").exists()


def test_list_prints_a_command_for_each_run_and_seed(tables, capsys):
    assert tables("--list", "small") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "# Ours",
        *(
            f"python train.py method=ours model=small task={task} seed={seed} table=small"
            for task in ("one", "two")
            for seed in (0, 1)
        ),
        "# Other: another rate",
        "python train.py method=other model=small task=one training.lr=0.5 seed=0 table=small",
        "python train.py method=other model=small task=two training.lr=0.5 seed=0 table=small",
        "# Later: method yet to come",
    ]


@pytest.mark.parametrize("first", ["", " training.lr=0.2"])
def test_runs_that_differ_in_two_words_are_not_swept_into_a_product(root, tables, first):
    path = root / "conf" / "table" / "small.yaml"
    text = path.read_text().replace("[task=two]", "[task=two, training.lr=0.3]")
    path.write_text(text.replace("[task=one]", f"[task=one{first.replace(' ', ', ')}]"))
    tables()
    text = (root / "results" / "tables" / "small.md").read_text()
    assert (
        f"- Ours: `python train.py -m method=ours model=small task=one{first} seed=0,1 table=small`, "
        "`python train.py -m method=ours model=small task=two training.lr=0.3 seed=0,1 table=small`\n"
    ) in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "big"], "there is no table 'big'; conf/table has small"),
        (["--list", "big"], "there is no table 'big'; conf/table has small"),
        (["--out", "-"], "--out writes one table: add --name NAME"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_1(tables, capsys, words, message):
    assert tables(*words) == 1
    assert capsys.readouterr().err == message + "\n"


def test_the_script_imports_nothing_heavy(repository):
    code = (
        "import sys, runpy; sys.argv = ['tables.py', '--name', 'minilm_textual_digits', '--out', '-']\n"
        "try: runpy.run_path('scripts/tables.py', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'peft', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
