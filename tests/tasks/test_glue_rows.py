"""GLUE's layouts, and files that are torn or of another layout: one line with file, row and what was expected."""

import gzip

import pyarrow
import pytest
from pyarrow import parquet

from tombola.tasks import DataError
from tombola.tasks.glue_rows import GlueFiles, LabelledText

RTE = GlueFiles(
    "glue/rte",
    {"text": "sentence1", "pair": "sentence2", "label": "label"},
    classes=["entailment", "not_entailment"],
)
COLA = GlueFiles(
    "glue/cola",
    {"text": "sentence", "label": "label"},
    header=["source", "label", "mark", "sentence"],
    classes=["0", "1"],
)
STSB = GlueFiles("glue/stsb", {"text": "sentence1", "pair": "sentence2", "label": "score"}, score_range=[0.0, 5.0])
RTE_TEXT = "index\tsentence1\tsentence2\tlabel\n0\tA cat.\tAn animal.\tentailment\n1\tA cat.\tA dog.\tnot_entailment\n"
TURNED = "".join("\t".join(line.split("\t")[::-1]) + "\n" for line in RTE_TEXT.splitlines())
RTE_ROWS = [LabelledText("A cat.", "An animal.", 0), LabelledText("A cat.", "A dog.", 1)]


def write(folder, text, name="train.tsv"):
    path = folder / name
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (RTE_TEXT, "train.tsv"),
        (RTE_TEXT, "train.tsv.gz"),
        (RTE_TEXT.removesuffix("\n"), "train.tsv"),
        (RTE_TEXT.replace("\n", "\r\n"), "train.tsv"),
        ("\ufeff" + TURNED, "train.tsv"),
        (TURNED, "train.tsv"),
    ],
    ids=["plain", "gz", "no last newline", "carriage returns", "byte order mark", "other order of columns"],
)
def test_a_pair_of_sentences_by_the_names_of_its_columns(tmp_path, text, name):
    assert RTE.read(write(tmp_path, text, name)) == (RTE_ROWS, 0)


def test_cola_names_no_columns(tmp_path):
    rows, _ = COLA.read(write(tmp_path, "gj04\t1\t\tThe sailors rode.\nr-67\t0\t*\tThe sailors rides."))
    assert rows == [LabelledText("The sailors rode.", None, 1), LabelledText("The sailors rides.", None, 0)]


def test_quotes_and_line_separators_are_part_of_the_text(tmp_path):
    text = 'sentence1\tsentence2\tscore\n"He said\t\u2028"so"\t3.800\n'
    assert STSB.read(write(tmp_path, text)) == ([LabelledText('"He said', '\u2028"so"', 3.8)], 0)


def test_rows_without_a_label_are_counted(tmp_path):
    text = RTE_TEXT + "2\tA cat.\tA pet.\t-\n"
    assert RTE.read(write(tmp_path, text)) == (RTE_ROWS, 1)


def test_rows_that_break_off_are_refused_or_counted(tmp_path):
    path = write(tmp_path, RTE_TEXT.replace("\tA dog.\tnot_entailment", "") + "2\tA cat.\tA pet.\tentailment\n")
    with pytest.raises(DataError, match=r"row 1 \(line 3\) has 2 columns; expected 4: index, sentence1, sentence2"):
        RTE.read(path)
    lenient = GlueFiles("glue/rte", RTE.columns, classes=RTE.classes, broken_rows="leave_out")
    assert lenient.read(path) == ([RTE_ROWS[0], LabelledText("A cat.", "A pet.", 0)], 1)


@pytest.mark.parametrize(
    ("files", "text", "message"),
    [
        (RTE, RTE_TEXT[:-4], r"row 1 \(line 3\) has the label 'not_entailm'; expected one of entailment, not_entailm"),
        (RTE, RTE_TEXT[: RTE_TEXT.index("\tA dog")], r"row 1 \(line 3\) has 2 columns; expected 4"),
        (RTE, RTE_TEXT + "2\ta\tb\tc\tentailment\n", r"row 2 \(line 4\) has 5 columns; expected 4"),
        (RTE, RTE_TEXT + "\n", r"row 2 \(line 4\) has 1 columns; expected 4"),
        (RTE, RTE_TEXT.replace("\tentailment", "\t0"), r"row 0 \(line 2\) has the label '0'; expected one of entail"),
        (RTE, RTE_TEXT.split("\n", 1)[1], r"has the columns 0, A cat\., .*; expected sentence1, sentence2, label too"),
        (RTE, RTE_TEXT.replace("\tlabel", "\tgold"), "has the columns index, .*, gold; expected label too"),
        (RTE, "index\tsentence1\tsentence2\tlabel\n", "has no rows; expected sentence1, sentence2, label"),
        (RTE, "", "has the columns ; expected sentence1, sentence2, label too"),
        (RTE, b"sentence1\tsentence2\tlabel\n\xff\ta\tentailment\n", "is not UTF-8 text"),
        (COLA, "gj04\t2\t\tText.\n", r"row 0 \(line 1\) has the label '2'; expected one of 0, 1"),
        (COLA, "source\tlabel\tmark\tsentence\n", r"row 0 \(line 1\) has the label 'label'; expected one of 0, 1"),
        (COLA, "sentence\tlabel\nText.\t1\n", r"row 0 \(line 1\) has 2 columns; expected 4: source, label, mark, sen"),
        (STSB, "sentence1\tsentence2\tscore\na\tb\t5.1\n", r"row 0 .* score '5\.1'; expected a number from 0 to 5"),
        (STSB, "sentence1\tsentence2\tscore\na\tb\t-0.5\n", r"row 0 .* score '-0\.5'; expected a number from 0 to 5"),
        (STSB, "sentence1\tsentence2\tscore\na\tb\tnan\n", r"row 0 .* score 'nan'; expected a number from 0 to 5"),
        (STSB, "sentence1\tsentence2\tscore\na\tb\t\n", r"row 0 .* score ''; expected a number from 0 to 5"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, files, text, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as raised:
        files.read(path)
    assert str(raised.value).startswith(f"{files.task}: {path} ")
    assert "\n" not in str(raised.value)


def test_a_torn_gzip_file(tmp_path):
    path = write(tmp_path, RTE_TEXT * 100, "train.tsv.gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"glue/rte: .*train\.tsv\.gz is torn"):
        RTE.read(path)


HUB = {"idx": [0, 1], "sentence1": ["A cat."] * 2, "sentence2": ["An animal.", "A dog."], "label": [0, 1]}


def table(folder, **columns):
    path = folder / "train-00000-of-00001.parquet"
    parquet.write_table(pyarrow.table({**HUB, **columns}), path)
    return path


def test_the_hubs_parquet_has_numbers_for_classes(tmp_path):
    assert RTE.read(table(tmp_path)) == (RTE_ROWS, 0)
    assert RTE.read(table(tmp_path, label=[-1, 1])) == (RTE_ROWS[1:], 1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 2]}, "row 1 has the label 2; expected one of entailment, not_entailment"),
        ({"sentence2": ["An animal.", None]}, r"row 1 has \['A cat\.', None\]; expected text in sentence1, sentence2"),
    ],
)
def test_a_wrong_parquet_file_is_one_line(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        RTE.read(table(tmp_path, **columns))


def test_a_torn_parquet_file_and_one_of_other_columns(tmp_path):
    path = table(tmp_path)
    with pytest.raises(DataError, match="has the columns idx, sentence1, sentence2, label; expected score too"):
        STSB.read(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"\.parquet is torn or no Parquet"):
        RTE.read(path)
