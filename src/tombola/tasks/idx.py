"""MNIST's IDX files: `00 00 08 <dimensions>`, a big-endian uint32 size for each, then one byte a value."""

import hashlib
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from tombola.tasks.example import DataError
from tombola.tasks.sources import read_bytes

UNSIGNED_BYTES = b"\x00\x00\x08"


def read_idx(task: str, path: Path, dimensions: int, sha256: str | None = None) -> UInt8[ndarray, "..."]:
    """The array of a file (plain or .gz); `sha256` is that of the unpacked content."""
    content = read_bytes(task, path)
    if content[:3] != UNSIGNED_BYTES or len(content) < 4 + 4 * dimensions or content[3] != dimensions:
        raise DataError(f"{task}: {path} is no IDX file of bytes with {dimensions} dimensions: starts {content[:4]!r}")
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    expected = int(np.prod(shape))
    if values.size != expected:
        raise DataError(f"{task}: {path} is torn: its header says {expected} bytes ({shape}), it has {values.size}")
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise DataError(f"{task}: {path} unpacked has SHA-256 {found}, expected {sha256}")
    return values.reshape(shape)
