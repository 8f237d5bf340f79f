"""The probes' settings and local rows: what lm-eval could not use is one line with the file, the row and the wish."""

import gzip
import hashlib
import json

import pytest
from tests.forgetting.probe_files import HELLASWAG, PIQA, ROWS, probe_folder, write_rows

from tombola.tasks import DataError, Probes


@pytest.fixture
def folder(tmp_path):
    return probe_folder(tmp_path)


def test_rows_are_read_by_probe_and_split(folder):
    rows = Probes(data_dir=str(folder)).rows
    assert {probe: {split: len(lines) for split, lines in splits.items()} for probe, splits in rows.items()} == {
        "piqa": {"validation": 5},
        "hellaswag": {"validation": 6},
        "gsm8k": {"train": 6, "test": 3},
    }
    assert rows["piqa"]["validation"] == PIQA


def test_a_context_that_is_not_divided_is_all_of_the_first_part(folder):
    divided = {
        **HELLASWAG[1],
        "ctx_a": "A man stands.",
        "ctx_b": "he",
        "ctx": "A man stands. he",
        "label": "1",
        "ind": 7,
    }
    write_rows(folder / "hellaswag.validation.jsonl.gz", [HELLASWAG[0], divided])
    whole, halves = Probes(data_dir=str(folder), probes=["hellaswag"]).rows["hellaswag"]["validation"]
    assert (whole["ctx_a"], whole["ctx_b"]) == (HELLASWAG[0]["ctx"], "")
    assert (halves["ctx_a"], halves["ctx_b"]) == ("A man stands.", "he")
    assert (halves["label"], "ind" in halves) == (1, False)


def test_only_the_files_of_the_probes_that_are_asked_are_read(folder):
    (folder / "gsm8k.train.jsonl.gz").unlink()
    assert set(Probes(data_dir=str(folder), probes=["piqa"]).rows) == {"piqa"}
    with pytest.raises(DataError, match=r"no file .*gsm8k\.train\.jsonl\.gz; expected gsm8k\.train\.jsonl\.gz in"):
        Probes(data_dir=str(folder), probes=["gsm8k"])


def test_without_a_folder_nothing_is_read():
    assert Probes().rows == {}


@pytest.mark.parametrize(
    ("file", "number", "change", "says"),
    [
        ("piqa.validation", 2, {"label": 2}, "row 2 has label = 2; expected 0 or 1"),
        ("piqa.validation", 4, {"sol2": None}, "row 4 has sol2 = None; expected str"),
        ("hellaswag.validation", 1, {"label": "4"}, "row 1 has label = '4'; expected 0 to 3"),
        ("hellaswag.validation", 5, {"endings": ["a", "b"]}, r"row 5 has endings = \['a', 'b'\]; expected 4 texts"),
        ("hellaswag.validation", 0, {"endings": [1, 2, 3, 4]}, "expected 4 texts"),
        ("gsm8k.train", 3, {"answer": "It is 18."}, "row 3 has answer = 'It is 18.'; expected an end such as #### 18"),
        ("gsm8k.test", 0, {"question": 7}, "row 0 has question = 7; expected str"),
    ],
)
def test_a_row_of_the_wrong_layout(folder, file, number, change, says):
    rows = [dict(row) for row in ROWS[f"{file}.jsonl.gz"]]
    rows[number] |= change
    write_rows(folder / f"{file}.jsonl.gz", rows)
    with pytest.raises(DataError, match=says) as error:
        Probes(data_dir=str(folder))
    assert f"{folder / file}.jsonl.gz" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_cut_short(folder):
    path = folder / "piqa.validation.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"piqa.validation.jsonl.gz is torn .*; expected a whole gzip file"):
        Probes(data_dir=str(folder))
    text = "".join(json.dumps(row) + "\n" for row in PIQA)
    path.write_bytes(gzip.compress(text[:-20].encode()))
    with pytest.raises(DataError, match="row 4 is torn or no JSON"):
        Probes(data_dir=str(folder))


def test_the_checksum_is_that_of_the_unpacked_file(folder):
    path = folder / "piqa.validation.jsonl.gz"
    expected = {path.name: hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()}
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    Probes(data_dir=str(folder), checksums=expected)
    write_rows(path, PIQA[:3])
    with pytest.raises(DataError, match=rf"{path.name}, 3 rows, .* expected {expected[path.name]}: it is cut short or"):
        Probes(data_dir=str(folder), checksums=expected)
    Probes(data_dir=str(folder), checksums=None)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"role": "encoder"}, "expected a model of role decoder, got encoder"),
        ({"probes": ["piqa", "mmlu"]}, r"probes=\['piqa', 'mmlu'\]; expected some of piqa, hellaswag, gsm8k"),
        ({"probes": []}, r"probes=\[\]; expected some of"),
        ({"limit": {"piqa": 0}}, "limit.piqa=0; expected a whole number of at least 1"),
        ({"shots": {"gsm8k": -1}}, "shots.gsm8k=-1; expected a whole number of at least 0"),
        ({"batch_size": "auto"}, "batch_size=auto; expected a whole number of at least 1"),
        ({"shots": {"piqa": 1}}, "shots.piqa=1; expected 0, for the local copy has no training rows of piqa to show"),
    ],
)
def test_settings_that_lm_eval_could_not_use(folder, settings, says):
    with pytest.raises(DataError, match=says):
        Probes(data_dir=str(folder), **settings)


def test_the_published_files_have_the_checksums_and_rows_of_the_yaml(data_folder):
    from omegaconf import OmegaConf
    from tests.tasks.test_load import CONF

    config = OmegaConf.to_container(OmegaConf.load(CONF / "probes/forgetting.yaml"))
    rows = Probes(data_dir=str(data_folder / "lm_eval"), checksums=config["checksums"]).rows
    assert {probe: len(list(splits.values())[-1]) for probe, splits in rows.items()} == config["rows"]["test"]
