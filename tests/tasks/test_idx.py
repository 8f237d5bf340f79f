import gzip
import hashlib

import numpy as np
import pytest

from tombola.tasks import DataError
from tombola.tasks.idx import read_idx

HEADER = b"\x00\x00\x08\x02\x00\x00\x00\x02\x00\x00\x00\x03"
BODY = bytes(range(6))


def test_plain_and_packed_files_are_the_same_array(tmp_path):
    (tmp_path / "a").write_bytes(HEADER + BODY)
    (tmp_path / "a.gz").write_bytes(gzip.compress(HEADER + BODY))
    right = hashlib.sha256(HEADER + BODY).hexdigest()
    for name in ("a", "a.gz"):
        assert np.array_equal(read_idx("t", tmp_path / name, 2, right), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", r"is no IDX file of bytes with 2 dimensions: starts b'PK"),
        (HEADER[:6], r"is no IDX file of bytes with 2 dimensions"),
        (b"\x00\x00\x08\x03" + HEADER[4:] + bytes(10), r"is no IDX file of bytes with 2 dimensions"),
        (HEADER + BODY[:-1], r"is torn: its header says 6 bytes \(\(2, 3\)\), it has 5"),
        (HEADER + BODY, r"unpacked has SHA-256 [0-9a-f]{64}, expected abc"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx("t", tmp_path / "a", 2, "abc")
