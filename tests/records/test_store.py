"""Records are written whole, once, and never over another - also by many processes, and without hard links."""

import errno
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tombola_cli.records import RecordError, find_ok, read_record, read_records, write_record
from tombola_cli.records.store import attempts


def test_an_existing_record_stays_and_the_next_gets_a_number(tmp_path, record):
    first = write_record(tmp_path, record)
    before = first.read_bytes()
    second = write_record(tmp_path, replace(record, status="failed"))
    third = write_record(tmp_path, record)
    assert [path.name for path in (first, second, third)] == [f"{record.id}{end}.json" for end in ("", ".1", ".2")]
    assert first.read_bytes() == before
    assert attempts(tmp_path, record.id) == [first, second, third]


def test_the_latest_ok_attempt_is_found(tmp_path, record):
    assert find_ok(tmp_path, record.id) is None
    write_record(tmp_path, replace(record, status="failed"))
    assert find_ok(tmp_path, record.id) is None
    write_record(tmp_path, replace(record, ticket={"attempt": 1}))
    write_record(tmp_path, replace(record, ticket={"attempt": 2}))
    write_record(tmp_path, replace(record, status="diverged"))
    found = find_ok(tmp_path, record.id)
    assert found is not None
    assert found.ticket == {"attempt": 2}


def test_an_id_that_begins_like_another_is_another(tmp_path, record):
    write_record(tmp_path, replace(record, id=record.id + "0"))
    assert find_ok(tmp_path, record.id) is None


def test_a_folder_is_read_in_order_without_temporary_files(tmp_path, record):
    assert read_records(tmp_path / "not there") == []
    for name in ("b", "a"):
        write_record(tmp_path, replace(record, id=name))
    (tmp_path / ".a.json").write_text("half a rec")
    assert [one.id for one in read_records(tmp_path)] == ["a", "b"]


def test_a_broken_file_is_named(tmp_path, record):
    path = write_record(tmp_path, record)
    path.write_text("{}")
    with pytest.raises(RecordError, match=rf"{record.id}\.json: the field 'id' is missing"):
        read_record(path)


def test_an_invalid_record_leaves_nothing_behind(tmp_path, record):
    with pytest.raises(RecordError, match="status"):
        write_record(tmp_path, replace(record, status="done"))
    assert list(tmp_path.iterdir()) == []


def test_colleagues_can_read_a_record(tmp_path, record):
    assert write_record(tmp_path, record).stat().st_mode & 0o044 == 0o044


def test_processes_that_write_at_once_keep_every_record(tmp_path, record):
    with ProcessPoolExecutor(2) as pool:
        paths = list(pool.map(write_record, [tmp_path] * 12, [replace(record, ticket={"n": n}) for n in range(12)]))
    assert len(set(paths)) == 12
    assert sorted(one.ticket["n"] for one in read_records(tmp_path)) == list(range(12))
    assert all(path.suffix == ".json" for path in tmp_path.iterdir())


def test_a_file_system_without_hard_links_also_never_overwrites(tmp_path, record, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first, second = write_record(tmp_path, record), write_record(tmp_path, replace(record, status="failed"))
    assert read_record(first).status == "ok"
    assert read_record(second).status == "failed"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_not_taken_for_a_missing_feature(tmp_path, record, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_record(tmp_path, record)
    assert list(tmp_path.iterdir()) == []


def test_the_text_is_on_disk_before_it_has_its_name(tmp_path, record, monkeypatch):
    calls = []
    real_sync, real_link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), real_sync(handle))[1])
    monkeypatch.setattr(os, "link", lambda source, path: (calls.append(Path(path).suffix), real_link(source, path))[1])
    write_record(tmp_path, record)
    assert calls == ["fsync", ".json", "fsync"]
