import hashlib
import json
from pathlib import Path

import pytest

from tombola.training.archive import MANIFEST, is_complete, remove_torn, sha256, write_folder


def write_two(folder: Path) -> None:
    (folder / "a.txt").write_text("one")
    (folder / "b.txt").write_text("two")


def test_a_folder_is_written_with_a_manifest_of_its_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "x" / "made", write_two)
    hashes = json.loads((tmp_path / "x" / "made" / MANIFEST).read_text())
    assert hashes == {"a.txt": hashlib.sha256(b"one").hexdigest(), "b.txt": hashlib.sha256(b"two").hexdigest()}
    assert is_complete(tmp_path / "x" / "made")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["made"]


def test_a_folder_of_that_name_is_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "made", lambda folder: (folder / "old").write_text("old") and None)
    write_folder(tmp_path / "made", write_two)
    assert not (tmp_path / "made" / "old").exists()
    assert is_complete(tmp_path / "made")


def test_a_failure_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    write_folder(tmp_path / "made", write_two)

    def fail(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path / "made", fail)
    assert (tmp_path / "made" / "a.txt").read_text() == "one"
    assert is_complete(tmp_path / "made")


@pytest.mark.parametrize("fault", ["changed", "missing", "no manifest", "torn manifest", "no folder"])
def test_a_fault_makes_a_folder_incomplete_and_it_is_removed(tmp_path: Path, fault: str) -> None:
    write_folder(tmp_path / "good", write_two)
    folder = tmp_path / "made"
    write_folder(folder, write_two)
    match fault:
        case "changed":
            (folder / "a.txt").write_text("onf")
        case "missing":
            (folder / "b.txt").unlink()
        case "no manifest":
            (folder / MANIFEST).unlink()
        case "torn manifest":
            (folder / MANIFEST).write_text('{"a.txt": "')
        case "no folder":
            folder.rename(tmp_path / ".incomplete-made")
    assert not is_complete(folder)
    remove_torn(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_sha256_of_a_file_larger_than_a_block(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "large").write_bytes(content)
    assert sha256(tmp_path / "large") == hashlib.sha256(content).hexdigest()
