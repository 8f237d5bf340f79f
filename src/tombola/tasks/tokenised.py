"""Training rows as tokens, kept on disk by what they are made of: the jobs of a sweep tokenise a data set once."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tombola.tasks import encoding
from tombola.tasks.example import Example, Row, Task
from tombola.tasks.sources import cache_folder

FEWEST_ROWS = 2000  # fewer are tokenised in about the time that looking for them takes


def tokenised(
    task: Task,
    examples: Sequence[Example],
    processor: Any,
    *,
    max_length: int,
    on_cut: Callable[[int], None] | None = None,
) -> list[Row]:
    """`encode`, from the cache folder where the same rows have been tokenised before.

    The file's name is a digest of the examples, the format, the tokenizer's own content and the code that encodes, so
    nothing in it can be stale. It is written whole, by one process at a time; one that is torn is made again.
    """
    fast = getattr(processor, "backend_tokenizer", None)  # images and slow tokenizers have no content to go by
    if fast is None or len(examples) < FEWEST_ROWS:
        return encoding.encode(task, examples, processor, max_length=max_length, on_cut=on_cut)
    path = cache_folder().with_name("tokenised") / f"{_key(task, examples, processor, max_length)}.safetensors"
    found = _read(path)
    if found is None:
        found = _make(path, lambda note: encoding.encode(task, examples, processor, max_length=max_length, on_cut=note))
    rows, cut = found
    if cut and on_cut:
        on_cut(cut)
    return rows


def _key(task: Task, examples: Sequence[Example], tokenizer: Any, max_length: int) -> str:
    """SHA-256 of all that decides the rows."""
    how = [task.name, task.version, task.answers_by, asdict(task.format), asdict(task.generation), max_length]
    special = [tokenizer.chat_template, tokenizer.eos_token_id, type(tokenizer).__name__]
    digest = hashlib.sha256(Path(encoding.__file__).read_bytes())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(json.dumps([how, special], sort_keys=True).encode())
    for example in examples:
        digest.update(json.dumps(vars(example), default=vars).encode() + b"\n")
    return digest.hexdigest()


def _make(path: Path, make: Callable[[Callable[[int], None]], list[Row]]) -> tuple[list[Row], int]:
    """The rows and how many were cut, made by this process or by another that was faster."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        _not_kept(error)
        return _counted(make)
    try:
        found = _read(path)
        if found is None:
            found = _counted(make)
            _write(path, *found)
        return found
    finally:
        lock.release()


def _counted(make: Callable[[Callable[[int], None]], list[Row]]) -> tuple[list[Row], int]:
    cut: list[int] = []
    rows = make(cut.append)
    return rows, sum(cut)


def _write(path: Path, rows: Sequence[Row], cut: int) -> None:
    """Lists end to end, with the place where each row ends; single numbers as they are."""
    lists = [name for name, value in rows[0].items() if isinstance(value, list)]
    arrays: dict[str, ndarray] = {"ends": np.cumsum([len(row[lists[0]]) for row in rows], dtype=np.int64)}
    for name in rows[0]:
        if name in lists:
            arrays[name] = np.fromiter((token for row in rows for token in row[name]), dtype=np.int32)
        else:
            arrays[name] = np.array([row[name] for row in rows])
    part = path.with_suffix(".part")
    try:
        save_file(arrays, part, {"cut": str(cut), "lists": " ".join(lists), "sha256": _checksum(arrays)})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        _not_kept(error)
        part.unlink(missing_ok=True)


def _read(path: Path) -> tuple[list[Row], int] | None:
    """The rows of a file and how many were cut; None where it is not there or not whole."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            metadata = file.metadata()
        if metadata["sha256"] != _checksum(arrays):
            raise ValueError("its content has another checksum than it says")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is torn and made again ({error})", stacklevel=4)
        return None
    return _rows(arrays, metadata["lists"].split()), int(metadata["cut"])


def _rows(arrays: Mapping[str, ndarray], lists: Sequence[str]) -> list[Row]:
    ends = arrays["ends"].tolist()
    columns: dict[str, list[Any]] = {name: array.tolist() for name, array in arrays.items() if name != "ends"}
    for name in lists:
        numbers = columns[name]
        columns[name] = [numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _checksum(arrays: Mapping[str, ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _not_kept(error: Exception) -> None:
    """A full disk, or a folder that is not ours, must not stop a run."""
    warnings.warn(f"tokenised rows are not kept: {error}", stacklevel=4)
