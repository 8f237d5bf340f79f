"""Records as files: one JSON a run, written whole or not at all, and never over another.

`<id>.json` is a run's first attempt; one after it (`force=true`, or the first failed) is `<id>.1.json`, and so on.
"""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tombola_cli.records.record import Record
from tombola_cli.records.record_json import from_json, to_json

# What os.link says on a file system without hard links (FAT, some network mounts and containers).
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def write_record(directory: str | os.PathLike[str], record: Record) -> Path:
    """The path of the new file that holds `record`. An existing record stays as it is, also when two processes write.

    Raises:
        RecordError: the record is not a valid one; nothing is written.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{record.id}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(to_json(record))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would keep colleagues from reading shared records
        path = next(path for path in _names(folder, record.id) if _claim(temporary, path))
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(folder)
    return path


def read_record(path: str | os.PathLike[str]) -> Record:
    """The record in one file.

    Raises:
        RecordError: names the file and the field that is wrong.
    """
    return from_json(Path(path).read_text(encoding="utf-8"), where=str(path))


def read_records(directory: str | os.PathLike[str]) -> list[Record]:
    """All records of a folder, by file name; none where the folder is not there yet."""
    return [read_record(path) for path in sorted(Path(directory).glob("[!.]*.json"))]


def attempts(directory: str | os.PathLike[str], run_id: str) -> list[Path]:
    """The files of one identity's runs, first attempt first."""
    return list(itertools.takewhile(Path.exists, _names(Path(directory), run_id)))


def find_ok(directory: str | os.PathLike[str], run_id: str) -> Record | None:
    """The latest successful record of an identity: what a run that is already done, and a table's cell, show."""
    paths = reversed(attempts(directory, run_id))
    return next((record for record in map(read_record, paths) if record.status == "ok"), None)


def _names(folder: Path, run_id: str) -> Iterator[Path]:
    yield folder / f"{run_id}.json"
    for number in itertools.count(1):
        yield folder / f"{run_id}.{number}.json"


def _claim(temporary: Path, path: Path) -> bool:
    """Give the written file the name `path` unless that is taken: a hard link, unlike a rename, never replaces."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return _claim_by_creating(temporary, path)
    return True


def _claim_by_creating(temporary: Path, path: Path) -> bool:
    """The same without links: whoever creates the name owns it, then the whole file replaces the empty one."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    os.replace(temporary, path)
    return True


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut; where folders cannot be synced (Windows), the file itself was."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
