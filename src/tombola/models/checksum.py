"""Checksums of files, in pieces: weights do not fit in memory twice."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE_BYTES = 1 << 22


def sha256(file: Path) -> str:
    """The file's SHA-256, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
