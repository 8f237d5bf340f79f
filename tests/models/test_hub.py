"""Whatever keeps a model from being fetched, the error names the model, the reason and the ways on."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tombola.models import ModelUnavailable, hub, load_host

ANSWER = SimpleNamespace(headers={}, request=None)

REASONS = [
    (GatedRepoError("403", response=ANSWER), "llama3_8b", "is gated, and you are not logged in"),
    (RepositoryNotFoundError("401", response=ANSWER), "llama3_8b", r"was not found, or is private .*\(401\)"),
    (RevisionNotFoundError("404", response=ANSWER), "roberta_base", "has no such revision"),
    (LocalEntryNotFoundError("offline"), "roberta_base", "not in the local cache, and the hub cannot be reached"),
    (OfflineModeIsEnabled("offline"), "roberta_base", "not in the local cache, and the hub cannot be reached"),
    (RuntimeError("tunnel\nof many lines"), "roberta_base", r"could not be fetched \(RuntimeError: tunnel\)"),
    (RuntimeError(), "roberta_base", r"could not be fetched \(RuntimeError: \)"),
]


@pytest.mark.parametrize(("error", "name", "reason"), REASONS)
def test_each_reason_is_one_line_with_the_ways_on(model_of, monkeypatch, error, name, reason):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    model = model_of(name)
    with pytest.raises(ModelUnavailable, match=reason) as raised:
        hub.hub_folder(model)
    message = str(raised.value)
    assert message.startswith(f"model {name} cannot be loaded: {model['repo']} at revision main ")
    assert ("`hf auth login`" in message) is model["gated"]
    assert message.endswith("or give a local copy with model.path=DIR")
    assert "\n" not in message


def test_offline_it_fails_at_once_and_clearly(model_of):
    with pytest.raises(ModelUnavailable, match=r"model llama3_8b cannot be loaded: .* HF_HUB_OFFLINE is set"):
        load_host(model_of("llama3_8b", repo="meta-llama/no-such-model"), kind="generate", labels=0, seed=0)


def test_no_pickle_is_asked_for_and_the_commit_is_recorded(model_of, monkeypatch, tmp_path):
    asked = {}

    def give(repo, **options):
        asked.update(options, repo=repo)
        folder = tmp_path / "snapshots" / "0123abc"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", give)
    folder, provenance = hub.hub_folder(model_of("roberta_base", revision="v1"))
    assert (asked["repo"], asked["revision"]) == ("FacebookAI/roberta-base", "v1")
    assert provenance == {"source": "hub", "repo": "FacebookAI/roberta-base", "revision": "0123abc"}
    patterns = tuple(pattern.lstrip("*") for pattern in asked["allow_patterns"])
    assert not any(name.endswith(patterns) for name in ("pytorch_model.bin", "consolidated.00.pth", "model.pt", "a.py"))
    assert folder.name == "0123abc"


def test_a_revision_with_pickles_only_is_refused(model_of, monkeypatch, tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **options: str(tmp_path))
    with pytest.raises(ModelUnavailable, match=r"no \*\.safetensors, and pickled weights are never loaded; name a rev"):
        hub.hub_folder(model_of("deberta_v3_base"))


def test_a_local_folder_needs_a_config_and_safetensors(model_of, tmp_path: Path):
    model = model_of("llama3_8b", path=str(tmp_path))
    with pytest.raises(ModelUnavailable, match=r"model\.path=.* is not a folder with a config\.json"):
        hub.local_folder(model)
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelUnavailable, match=r"model\.path=.* has no \*\.safetensors"):
        hub.local_folder(model)
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    folder, provenance = hub.local_folder(model)
    assert folder == tmp_path
    assert provenance["sha256:model.safetensors"].startswith("ba7816bf8f01cfea414140de5dae2223")  # SHA-256 of "abc"
