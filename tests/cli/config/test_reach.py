import http.server
import socket
import threading

import pytest

from tombola_cli.config import reach
from tombola_cli.config.reach import unreachable


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_offline_by_the_users_word(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert unreachable("https://huggingface.co") == "HF_HUB_OFFLINE is set"


def test_any_answer_will_do():
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)  # answers 501 to HEAD
    server.RequestHandlerClass.log_message = lambda *_: None
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    assert unreachable(f"http://127.0.0.1:{server.server_port}/data") is None
    thread.join()
    server.server_close()


def test_nobody_there():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert f"127.0.0.1:{port} cannot be reached" in unreachable(f"http://127.0.0.1:{port}/data")


def test_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(reach, "SECONDS", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "timed out" in unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/data")
