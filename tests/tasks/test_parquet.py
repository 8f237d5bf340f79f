from types import SimpleNamespace

import huggingface_hub
import pytest
from datasets import Dataset
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from tombola.tasks import DataError
from tombola.tasks.parquet import hub_rows, snapshot

URL = "hf://datasets/org/data@main"
ROWS = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 1], "unread": [1, 2, 3]})
ANSWER = SimpleNamespace(headers={}, request=None)


def test_columns_and_rows_that_are_asked_for_and_the_commit(hub_cache):
    commit = hub_cache(
        "org/data", {"data/train-00000-of-00001.parquet": ROWS, "data/test-00000-of-00001.parquet": ROWS}
    )
    table, found = hub_rows("t", URL, "data/train-*.parquet", columns=["text", "label"])
    assert (table.to_list()[0], len(table), found) == ({"text": "a", "label": 0}, 3, commit)
    some, _ = hub_rows("t", URL, "data/train-*.parquet", columns=["text"], filters=[("label", "in", [1])])
    assert some["text"][:] == ["b", "c"]


def test_files_are_read_in_order(hub_cache):
    parts = {f"data/train-0000{n}-of-00002.parquet": ROWS.select([2 - n]) for n in (1, 0)}
    hub_cache("org/data", parts)
    table, _ = hub_rows("t", URL, "data/train-*.parquet", columns=["text"])
    assert table["text"][:] == ["c", "b"]


def test_a_part_that_is_missing_is_told(hub_cache):
    hub_cache("org/data", {"data/train-00001-of-00003.parquet": ROWS})
    with pytest.raises(DataError, match=r"has 1 files data/train-\*\.parquet in the cache; expected 3: connect"):
        hub_rows("t", URL, "data/train-*.parquet", columns=["text"])
    with pytest.raises(DataError, match=r"has 0 files data/test-\*\.parquet in the cache; expected 1"):
        hub_rows("t", URL, "data/test-*.parquet", columns=["text"])


def test_a_column_that_is_missing(hub_cache):
    hub_cache("org/data", {"data/train-00000-of-00001.parquet": ROWS})
    with pytest.raises(DataError, match=r"data/train-\*\.parquet cannot be read .*; expected parquet files with words"):
        hub_rows("t", URL, "data/train-*.parquet", columns=["words"])


def test_a_torn_file(hub_cache, tmp_path):
    commit = hub_cache("org/data", {"data/train-00000-of-00001.parquet": ROWS})
    path = tmp_path / f"hub/datasets--org--data/snapshots/{commit}/data/train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"train-\*\.parquet cannot be read \(.*Parquet.*\); expected parquet files"):
        hub_rows("t", URL, "data/train-*.parquet", columns=["text"])


def test_an_address_of_another_kind():
    with pytest.raises(DataError, match=r"task\.url=https://x; expected hf://datasets/OWNER/NAME@REVISION"):
        snapshot("t", "https://x", [])


def test_offline_without_a_copy(hub_cache):
    with pytest.raises(
        DataError, match=r"t: org/data at revision main is not in the local cache, and the hub cannot be"
    ):
        snapshot("t", URL, [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GatedRepoError("401", response=ANSWER), "is gated"),
        (RevisionNotFoundError("401", response=ANSWER), "has no such revision"),
        (RepositoryNotFoundError("401", response=ANSWER), "is not a data set that the hub shows to this account"),
        (OSError("no route\nto host"), r"could not be fetched \(OSError: no route\)"),
    ],
)
def test_what_the_hub_says_is_one_line(monkeypatch, error, reason):
    def raising(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising)
    with pytest.raises(DataError, match=rf"org/data at revision main {reason}.*: connect, or type task\.data_dir=DIR"):
        snapshot("t", URL, [])
