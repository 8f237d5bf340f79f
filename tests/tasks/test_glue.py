"""The eight tasks: what is read, measured and validated on, and what a record is told of the data."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tests.tasks.test_glue_rows import RTE_TEXT, write

from tombola.tasks import DataError, Example, Glue, encode, load_task
from tombola.tasks.sources import _write_whole

CONF = Path(__file__).resolve().parents[2] / "conf/task/glue"
SUBSETS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
NO_FILES = {"columns": {}, "train": [{}], "dev": [{}]}
NOTHING = {"local": NO_FILES, "web": NO_FILES, "data_dir": "."}
RTE_DEV = "index\tsentence1\tsentence2\tlabel\n0\tA cow.\tAn animal.\tentailment\n"
OPTIMISTIC = "validated on the dev set that is reported"
# $TOMBOLA_DATA/glue: rows of train and dev, and what its notes must say (methods: the dev sizes of GLUE)
REAL = {
    "cola": (8551, 1043, []),
    "sst2": (67349, 872, []),
    "mrpc": (3667, 409, ["train is a copy of 3,667 rows, not GLUE's own of 3,668", "409 rows, not GLUE's own of 408"]),
    "stsb": (5749, 1500, []),
    "qqp": (9999, 7598, ["QQP/train_10k.tsv.gz, a slice of 9,999", "QQP/eval_7k.tsv.gz, a slice of 7,598"]),
    "mnli": (9999, 7469, ["MNLI/train_10k.tsv.gz, a slice of 9,999", "MNLI/eval_7k.tsv.gz, a slice of 7,469"]),
    "qnli": (9999, 5463, ["QNLI/train_10k.tsv.gz, a slice of 9,999 rows, not GLUE's own of 104,743"]),
    "rte": (2490, 277, []),
}
GLUES_DEV = {
    "cola": 1043,
    "sst2": 872,
    "mrpc": 408,
    "stsb": 1500,
    "qqp": 40430,
    "mnli": 19647,
    "qnli": 5463,
    "rte": 277,
}


def task_of(subset, data_dir=None, **options):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{subset}.yaml"), resolve=True)
    return load_task({**config, "data_dir": data_dir and str(data_dir), **options}, role="encoder")


@pytest.fixture
def rte(tmp_path):
    """A folder of two training rows and one to report on."""
    (tmp_path / "RTE").mkdir()
    write(tmp_path / "RTE", RTE_TEXT)
    write(tmp_path / "RTE", RTE_DEV, "dev.tsv")
    return lambda **options: task_of("rte", tmp_path, **{"check_rows": False, **options})


def test_rows_become_pairs_with_the_class(rte):
    task = rte()
    assert (task.name, task.answers_by) == ("glue/rte", "classify")
    assert [(e.prompt, e.pair, e.target, e.gold) for e in task.train()] == [
        ("A cat.", "An animal.", 0, 0),
        ("A cat.", "A dog.", 1, 1),
    ]
    assert [example.prompt for example in task.tests()["validation"]] == ["A cow."]


def test_epochs_are_chosen_on_dev_or_on_training_rows(rte):
    assert rte().validation() == rte().tests()["validation"]
    assert OPTIMISTIC in rte().data_note
    honest = rte(select_on="train")
    assert list(honest.validation()) == []
    assert OPTIMISTIC not in honest.data_note
    assert honest.tests()["validation"] == rte().tests()["validation"]


def test_the_numbers_of_rows_are_checked(rte):
    with pytest.raises(DataError, match=r"RTE/train\.tsv ends after row 1; expected 2,490 rows, not 2: it is torn"):
        rte(check_rows=True)
    note = rte().data_note
    assert "train is a copy of 2 rows, not GLUE's own of 2,490; dev is a copy of 1 rows, not GLUE's own of 277" in note


def test_a_smaller_training_set_is_evenly_spaced_and_noted(tmp_path, rte):
    more = "".join(f"{number}\ttext {number}\tb\tentailment\n" for number in range(10))
    write(tmp_path / "RTE", RTE_TEXT.split("\n")[0] + "\n" + more)
    task = rte(train_rows=4)
    assert [example.prompt for example in task.train()] == ["text 0", "text 2", "text 5", "text 7"]
    assert "trained on 4 of 10 training rows" in task.data_note
    assert (len(rte(train_rows=10).train()), len(rte(train_rows=99).train())) == (10, 10)
    assert "trained on" not in rte(train_rows=10).data_note
    with pytest.raises(DataError, match=r"task\.train_rows=0: expected a whole number of at least 1"):
        rte(train_rows=0)


def test_rows_left_out_are_noted(tmp_path, rte):
    write(tmp_path / "RTE", RTE_TEXT + "2\tA cat.\tA pet.\t-\n")
    assert "RTE/train.tsv: 1 rows without a label or of too few columns left out" in rte().data_note


@pytest.mark.parametrize("subset", SUBSETS)
def test_each_protocol_measures_its_metric(subset):
    standard = {"cola": "matthews", "stsb": "pearson"}.get(subset, "accuracy")
    assert Glue(subset=subset, **NOTHING).metric == standard
    if subset == "stsb":
        with pytest.raises(
            DataError, match=r"task\.protocol=glue_accuracy: STS-B has scores .*, and PiLoRA leaves it out"
        ):
            Glue(subset=subset, protocol="glue_accuracy", **NOTHING)
    else:
        assert Glue(subset=subset, protocol="glue_accuracy", **NOTHING).metric == "accuracy"


def test_what_cannot_be_asked_for():
    with pytest.raises(DataError, match=r"glue/rte is answered by a head: expected a model of role encoder, got dec"):
        load_task({**OmegaConf.to_container(OmegaConf.load(CONF / "rte.yaml"), resolve=True)}, role="decoder")
    with pytest.raises(DataError, match=r"task\.protocol=glue: expected glue_standard or glue_accuracy"):
        task_of("rte", protocol="glue")
    with pytest.raises(DataError, match="glue/rte: no examples to measure"):
        Glue(subset="rte", **NOTHING).measure([], [])
    with pytest.raises(ValueError, match="shorter"):
        Glue(subset="stsb", **NOTHING).measure([Example("", 1.0, 1.0)] * 2, [1.0])


def test_a_missing_file_names_all_that_would_do(tmp_path):
    with pytest.raises(DataError, match=r"glue/rte: .* has no RTE/train\.tsv; task\.data_dir names the folder of GLUE"):
        task_of("rte", tmp_path)
    with pytest.raises(DataError, match=r"has no MNLI/train\.tsv, or MNLI/train_10k\.tsv\.gz; task\.data_dir"):
        task_of("mnli", tmp_path)


MNLI = "index\tsentence1\tsentence2\tgold_label\n{0}\t{0}\tb\tneutral\n"


def test_mnli_is_both_dev_sets_together_or_the_matched_one(tmp_path):
    (tmp_path / "MNLI").mkdir()
    for part in ("train", "dev_matched", "dev_mismatched"):
        write(tmp_path / "MNLI", MNLI.format(part), f"{part}.tsv")
    write(tmp_path / "MNLI", MNLI.format("slice"), "eval_7k.tsv.gz")
    asked = {}
    for protocol in ("glue_standard", "glue_accuracy"):
        task = task_of("mnli", tmp_path, protocol=protocol, check_rows=False)
        asked[protocol] = [example.prompt for example in task.tests()["validation"]]
    assert asked == {"glue_standard": ["dev_matched", "dev_mismatched"], "glue_accuracy": ["dev_matched"]}
    assert "dev is a copy of 1 rows, not GLUE's own of 9,815" in task.data_note
    (tmp_path / "MNLI" / "dev_matched.tsv").unlink()
    with_slice = task_of("mnli", tmp_path, check_rows=False)
    assert [example.prompt for example in with_slice.tests()["validation"]] == ["slice"]


def test_the_hubs_files_are_read_from_the_cache_by_revision(tmp_path, monkeypatch):
    import hashlib

    import pyarrow
    from pyarrow import parquet

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = OmegaConf.to_container(OmegaConf.load(CONF / "stsb.yaml"), resolve=True)
    assert config["url"] == f"https://huggingface.co/datasets/nyu-mll/glue/resolve/{config['revision']}"
    with pytest.raises(
        DataError, match=r"stsb/train-00000-of-00001\.parquet is not in the cache and HF_HUB_OFFLINE is"
    ):
        task_of("stsb", check_rows=False)
    for split, score in (("train", 2.5), ("validation", 5.0)):
        address = f"{config['url']}/stsb/{split}-00000-of-00001.parquet"
        folder = tmp_path / "tombola" / "data" / hashlib.sha256(address.encode()).hexdigest()[:16]
        table = pyarrow.table({"sentence1": ["a"], "sentence2": ["b"], "label": [score], "idx": [0]})
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(table, sink)
        _write_whole(folder / address.rsplit("/", 1)[-1], sink.getvalue().to_pybytes())
    task = task_of("stsb", check_rows=False)
    assert [(e.prompt, e.pair, e.gold) for e in [*task.train(), *task.tests()["validation"]]] == [
        ("a", "b", 2.5),
        ("a", "b", 5.0),
    ]
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet ends after row 0; expected 5,749 rows"):
        task_of("stsb")


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_published_data(data_folder, subset):
    train, dev, notes = REAL[subset]
    task = task_of(subset, data_folder / "glue")
    config = OmegaConf.load(CONF / f"{subset}.yaml")
    assert (len(task.train()), len(task.tests()["validation"])) == (train, dev)
    assert config.rows.test.validation == GLUES_DEV[subset]
    assert all(note in task.data_note for note in notes)
    assert (dev == GLUES_DEV[subset]) == ("dev is" not in task.data_note)
    assert ("train is" in task.data_note) == (train != config.rows.train)
    answers = [example.gold for example in task.tests()["validation"]]
    assert task.measure(task.tests()["validation"], answers) == {task.metric: pytest.approx(1.0)}
    if subset == "stsb":
        assert (min(answers), max(answers)) == (0.0, 5.0)
    else:
        assert set(answers) == set(range(config.labels))


def test_a_published_pair_is_one_row_for_a_head(data_folder, byte_tokenizer):
    task = task_of("rte", data_folder / "glue")
    (row,) = encode(task, task.train()[:1], byte_tokenizer, max_length=500)
    text = byte_tokenizer.decode(row["input_ids"])
    assert text == "No Weapons of Mass Destruction Found in Iraq Yet.Weapons of Mass Destruction Found in Iraq."
    assert row["label"] == 1
