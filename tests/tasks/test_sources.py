import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tombola.tasks import DataError
from tombola.tasks.sources import cache_folder, locate, read_bytes, read_rows

FIELDS = {"question": str, "answer": (int, float)}


@pytest.fixture
def online_cache(tmp_path, monkeypatch):
    """A cache of its own, and downloads allowed: the addresses of these tests are files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a.json").write_bytes(b"[1]")
    return (tmp_path / "site").as_uri()


def test_a_local_folder_wins_over_the_address(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    assert locate("t", "a.json", data_dir=str(tmp_path), url="https://nowhere.invalid") == tmp_path / "a.json"


def test_a_missing_local_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"t: no file .*a\.json; expected a\.json in the folder that task\.data_dir"):
        locate("t", "a.json", data_dir=str(tmp_path), url=None)


def test_without_folder_and_address_the_way_on_is_said():
    with pytest.raises(DataError, match=r"a\.json has no pinned source: type task\.data_dir=DIR"):
        locate("t", "a.json", data_dir=None, url=None)


def test_offline_without_cache_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"x/a\.json is not in the cache and HF_HUB_OFFLINE is set: unset it, or type"):
        locate("t", "a.json", data_dir=None, url="https://nowhere.invalid/x")


def test_a_download_is_kept(online_cache, tmp_path, monkeypatch):
    right = hashlib.sha256(b"[1]").hexdigest()
    path = locate("t", "a.json", data_dir=None, url=online_cache, sha256=right)
    assert path.read_bytes() == b"[1]"
    assert path.is_relative_to(cache_folder())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate("t", "a.json", data_dir=None, url=online_cache, sha256=right) == path


def test_a_torn_download_is_refused_and_not_kept(online_cache):
    with pytest.raises(DataError, match=r"has SHA-256 [0-9a-f]{64}, expected abc: the download is torn"):
        locate("t", "a.json", data_dir=None, url=online_cache, sha256="abc")
    assert not list(cache_folder().rglob("*.json"))


def test_an_address_that_does_not_answer(online_cache):
    with pytest.raises(DataError, match=r"cannot download .*b\.json .*: connect, or type task\.data_dir=DIR"):
        locate("t", "b.json", data_dir=None, url=online_cache)


def test_a_download_that_breaks_off_is_said(online_cache, tmp_path):
    class HalfAnAnswer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"[1")

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), HalfAnAnswer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(DataError, match=r"cannot download .*c\.json \(IncompleteRead.*: connect, or type"):
            locate("t", "c.json", data_dir=None, url=f"http://127.0.0.1:{server.server_port}")


def test_gzip_is_unpacked_and_torn_gzip_refused(tmp_path):
    whole = gzip.compress(b"text" * 100)
    (tmp_path / "a.gz").write_bytes(whole)
    (tmp_path / "b.gz").write_bytes(whole[:-9])
    assert read_bytes("t", tmp_path / "a.gz") == b"text" * 100
    with pytest.raises(DataError, match=r"b\.gz is torn .*; expected a whole gzip file"):
        read_bytes("t", tmp_path / "b.gz")


def test_rows_of_a_list_and_of_lines(tmp_path):
    rows = [{"question": "one\u2028two", "answer": 1}, {"question": "b", "answer": 2.5}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert read_rows("t", tmp_path / "a.json", FIELDS) == rows
    assert read_rows("t", tmp_path / "a.jsonl.gz", FIELDS) == rows  # a line separator inside a text is no new line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"\xff\xfe", r"a\.json is not UTF-8 text"),
        ("a.json", b" ", r"a\.json is empty; expected rows of question, answer"),
        ("a.json", b'[{"question": "a", ', r"a\.json is torn or no JSON .*; expected a list of objects"),
        ("a.json", b"{}", r"a\.json holds dict; expected a list of objects that is not empty"),
        ("a.json", b"[]", r"a\.json holds list; expected a list of objects that is not empty"),
        ("a.json", b"[3]", r"row 0 is int; expected an object with question, answer"),
        ("a.json", b'[{"question": "a", "answer": 1}, {"question": "a"}]', r"row 1 lacks 'answer'; expected an object"),
        ("a.json", b'[{"question": "a", "answer": "b"}]', r"row 0 has answer = 'b'; expected int or float"),
        ("a.json", b'[{"question": 5, "answer": 1}]', r"row 0 has question = 5; expected str"),
        (
            "a.jsonl",
            b'{"question": "a", "answer": 1}\n{"que',
            r"a\.jsonl row 1 is torn or no JSON .*expected one object",
        ),
    ],
)
def test_unusable_files_name_file_row_and_expectation(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_rows("t", tmp_path / name, FIELDS)
