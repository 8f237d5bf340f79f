"""Data sets of the Hugging Face hub, read from the parquet files of one commit: data alone, no loading script runs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.tasks.example import DataError

# hf://datasets/OWNER/NAME@REVISION, as huggingface_hub's own file system writes it
_ADDRESS = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<revision>.+)")
_PART = re.compile(r"-\d{5}-of-(?P<all>\d{5})")  # files of one split: train-00003-of-00034...


def hub_rows(
    task: str, url: str, pattern: str, *, columns: Sequence[str], filters: list[Any] | None = None
) -> tuple[Any, str]:
    """The `datasets.Dataset` of the files that match `pattern`, and the commit that they are of.

    `filters` are pyarrow's, for rows that are not to be read at all. Raises DataError where the files cannot be had.
    """
    from datasets import Dataset  # seconds to import, needed for data of the hub alone

    folder = snapshot(task, url, [pattern])
    files = whole_split(task, url, folder, pattern)
    names = [str(file) for file in files]
    try:
        return Dataset.from_parquet(names, columns=list(columns), filters=filters), folder.name
    except Exception as error:  # pyarrow's, datasets' and the file system's errors have no common class
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        wanted = "".join(f", and rows with {' '.join(map(str, one))}" for one in filters or ())
        expected = f"expected parquet files with {', '.join(columns)}{wanted}"
        raise DataError(
            f"{task}: {files[0].parent}/{Path(pattern).name} cannot be read ({reason}); {expected}"
        ) from error


def snapshot(task: str, url: str, patterns: Sequence[str]) -> Path:
    """The local folder of the commit that `url` names, its name the commit; only files that match are fetched."""
    from huggingface_hub import snapshot_download

    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise DataError(f"{task}: task.url={url}; expected hf://datasets/OWNER/NAME@REVISION")
    repo, revision = found.group("repo"), found.group("revision")
    try:
        return Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client lets its transport's own errors through: whatever it is, no data
        way_on = "connect, or type task.data_dir=DIR for a local copy"
        raise DataError(f"{task}: {repo} at revision {revision} {_reason(error)}: {way_on}") from error


def whole_split(task: str, url: str, folder: Path, pattern: str) -> list[Path]:
    """The files that match, in order. Raises DataError unless all those are there that their names count."""
    files = sorted(folder.glob(pattern))
    counted = [found for file in files if (found := _PART.search(file.name))]
    expected = int(counted[0].group("all")) if counted else 1
    if len(files) != expected:
        raise DataError(f"{task}: {url} has {len(files)} files {pattern} in the cache; expected {expected}: connect")
    return files


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "is gated (`hf auth login` with an account that was granted access)"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "is not a data set that the hub shows to this account"
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return "is not in the local cache, and the hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
    return f"could not be fetched ({type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''})"
