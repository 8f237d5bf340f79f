import types

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from tombola_cli.config import hub
from tombola_cli.config.hub import data_fault, hub_fault

DATA = {"name": "d", "repo": "org/data", "revision": "main"}
MODEL = {"name": "m", "repo": "org/net", "revision": "main", "gated": False}


@pytest.fixture(autouse=True)
def asked_anew():
    hub._fault.cache_clear()
    hub._data_fault.cache_clear()


@pytest.fixture
def answers(monkeypatch):
    """The hub's answers: `unreachable` for its server, `cached` and `snapshot` for the two ways of asking."""

    def answer(*, unreachable=None, cached=None, snapshot=None):
        def download(repo, *, local_files_only=False, **options):
            found = cached if local_files_only else snapshot
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(hub, "unreachable", lambda url: unreachable)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: types.SimpleNamespace(model_info=lambda *_, **__: None))

    return answer


def refused(error):
    """The hub library's error, which wants a response that the test does not have."""
    made = error.__new__(error)
    Exception.__init__(made, "refused")
    return made


def test_a_cached_model_is_fine_without_a_network(answers, tmp_path):
    (tmp_path / "model.safetensors").touch()
    answers(unreachable="HF_HUB_OFFLINE is set", cached=str(tmp_path))
    assert hub_fault(MODEL) is None


def test_a_cached_config_alone_is_not_the_model(answers, tmp_path):
    answers(unreachable="HF_HUB_OFFLINE is set", cached=str(tmp_path))
    assert hub_fault(MODEL) == (
        "model=m: org/net (revision main) is not in the local cache, and HF_HUB_OFFLINE is set; "
        "go online, or type model.path=DIR for a local copy"
    )


def test_offline_a_gated_model_needs_a_login_as_well(answers):
    answers(unreachable="huggingface.co cannot be reached", cached=FileNotFoundError())
    line = hub_fault({**MODEL, "gated": True})
    assert (
        "huggingface.co cannot be reached; go online and, as it is gated, `hf auth login`, or type model.path=DIR"
        in line
    )


def test_a_model_that_the_hub_gives(answers, tmp_path):
    answers(cached=FileNotFoundError(), snapshot=str(tmp_path))
    assert hub_fault(MODEL) is None


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (
            refused(GatedRepoError),
            "it is gated: accept its licence on https://huggingface.co/org/net, then `hf auth login`",
        ),
        (refused(RevisionNotFoundError), "the hub has no such revision; give model.revision=main or another one"),
        (refused(RepositoryNotFoundError), "no such model for this account; `hf auth login` if it is private"),
        (RuntimeError("502 Bad Gateway\nfor url ..."), "the hub did not give it (502 Bad Gateway); try again"),
    ],
)
def test_why_the_hub_refuses(answers, error, part):
    answers(cached=FileNotFoundError(), snapshot=error)
    line = hub_fault(MODEL)
    assert part in line
    assert line.endswith("or type model.path=DIR for a local copy")
    assert "\n" not in line


def test_data_that_is_cached_or_that_the_hub_can_be_asked_for(answers, tmp_path):
    answers(unreachable="HF_HUB_OFFLINE is set", cached=str(tmp_path))
    assert data_fault(DATA) is None
    hub._data_fault.cache_clear()
    answers(cached=FileNotFoundError())
    assert data_fault(DATA) is None


def test_data_without_a_network(answers):
    answers(unreachable="HF_HUB_OFFLINE is set", cached=FileNotFoundError())
    assert data_fault(DATA) == (
        "task=d: org/data (revision main) is not in the local cache, and HF_HUB_OFFLINE is set; "
        "connect, or type task.data_dir=DIR for a local copy"
    )
