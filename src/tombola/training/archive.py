"""Folders that are either complete or not there.

Files go to a temporary folder and are flushed to disk; a manifest of their SHA-256s is written last; then the folder is
renamed. A kill leaves the old state or the new one, and a torn copy (a full disk, a lost page) fails its manifest.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

MANIFEST = "manifest.json"
TEMPORARY = ".incomplete-"


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Makes `folder` with the files that `fill` writes, in one atomic step; replaces one of that name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(TEMPORARY + folder.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    fill(temporary)
    hashes = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
    for name in hashes:
        _flush(temporary / name)
    (temporary / MANIFEST).write_text(json.dumps(hashes, indent=1))
    _flush(temporary / MANIFEST)
    _flush(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _flush(folder.parent)


def is_complete(folder: Path) -> bool:
    """Whether the folder's files are those of its manifest, to the bit."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text())
        return all(sha256(folder / name) == value for name, value in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def remove_torn(parent: Path) -> None:
    """Removes what a kill or a fault left incomplete under `parent`."""
    for folder in parent.iterdir() if parent.is_dir() else ():
        if folder.is_dir() and (folder.name.startswith(TEMPORARY) or not is_complete(folder)):
            shutil.rmtree(folder)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
