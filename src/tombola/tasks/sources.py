"""Where a task's files come from: a local folder (`task.data_dir`), or a pinned address, kept in a cache."""

import gzip
import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tombola.tasks.example import DataError

TIMEOUT_SECONDS = 60


def cache_folder() -> Path:
    """The folder of downloaded data: `$XDG_CACHE_HOME/tombola/data`, else `~/.cache/tombola/data`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tombola" / "data"


def locate(task: str, file: str, *, data_dir: str | None, url: str | None, sha256: str | None = None) -> Path:
    """The path of `file`: under `data_dir` where that is given, else downloaded once from `url` (a folder's address).

    `sha256` is checked for downloads; a local folder is the user's own, and its files' checksums are in the run's id.
    """
    if data_dir is not None:
        path = Path(data_dir).expanduser() / file
        if not path.is_file():
            raise DataError(f"{task}: no file {path}; expected {file} in the folder that task.data_dir names")
        return path
    if url is None:
        raise DataError(f"{task}: {file} has no pinned source: type task.data_dir=DIR, a folder with {file}")
    address = f"{url.rstrip('/')}/{file}"
    path = cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:16] / Path(file).name
    if not path.is_file():
        _write_whole(path, _download(task, address, sha256))
    return path


def _download(task: str, address: str, sha256: str | None) -> bytes:
    way_on = f"type task.data_dir=DIR, a folder that has {address.rsplit('/', 1)[-1]}"
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise DataError(f"{task}: {address} is not in the cache and HF_HUB_OFFLINE is set: unset it, or {way_on}")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response:
            content = response.read()
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:  # IncompleteRead is of the second
        raise DataError(f"{task}: cannot download {address} ({error}): connect, or {way_on}") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise DataError(f"{task}: {address} has SHA-256 {found}, expected {sha256}: the download is torn; try again")
    return content


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def read_bytes(task: str, path: Path) -> bytes:
    """The file's content, unpacked if its name ends in .gz."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{task}: {path} is torn ({error}); expected a whole gzip file") from error


def read_json(task: str, path: Path) -> Any:
    """The one value in a .json file (it may be gzipped)."""
    try:
        return json.loads(read_bytes(task, path).decode("utf-8"))
    except ValueError as error:  # no UTF-8, or no JSON
        raise DataError(f"{task}: {path} is torn or no JSON ({error})") from error


def read_rows(task: str, path: Path, fields: Mapping[str, type | tuple[type, ...]]) -> list[dict[str, Any]]:
    """The rows of a .json list or of .jsonl lines (either may be gzipped); each has `fields` of the given types."""
    try:
        text = read_bytes(task, path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{task}: {path} is not UTF-8 text ({error})") from error
    if not text.strip():
        raise DataError(f"{task}: {path} is empty; expected rows of {', '.join(fields)}")
    rows = _lines(task, path, text) if ".jsonl" in path.name else _list(task, path, text)
    for number, row in enumerate(rows):
        check_fields(task, path, number, row, fields)
    return rows


def check_fields(task: str, path: Path, number: int, row: Any, fields: Mapping[str, Any]) -> None:
    """Raises DataError unless the row is an object that has every field with its type."""
    expected = ", ".join(fields)
    if not isinstance(row, dict):
        raise DataError(f"{task}: {path} row {number} is {type(row).__name__}; expected an object with {expected}")
    for field, kind in fields.items():
        if field not in row:
            raise DataError(f"{task}: {path} row {number} lacks {field!r}; expected an object with {expected}")
        if not isinstance(row[field], kind):
            raise DataError(f"{task}: {path} row {number} has {field} = {row[field]!r}; expected {_named(kind)}")


def _named(kind: type | Sequence[type]) -> str:
    return kind.__name__ if isinstance(kind, type) else " or ".join(each.__name__ for each in kind)


def _list(task: str, path: Path, text: str) -> list[Any]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{task}: {path} is torn or no JSON ({error}); expected a list of objects") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{task}: {path} holds {type(rows).__name__}; expected a list of objects that is not empty")
    return rows


def _lines(task: str, path: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.removesuffix("\n").split("\n")):  # splitlines() would cut at U+2028 too
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{task}: {path} row {number} is torn or no JSON ({error}); expected one object") from error
    return rows
