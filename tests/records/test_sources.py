"""Sources change with bytes and revisions, not with paths; a folder that lacks something is one clear error."""

import hashlib

import pytest

from tombola_cli.records import SourceError, run_id, sources


def test_packaged_weights_are_their_pinned_checksum(config):
    assert sources(config)["weights"] == "sha256:" + "ab" * 32


def test_hub_weights_are_repo_and_revision(config):
    config["model"] |= {"source": "hub", "repo": "org/model", "revision": "main"}
    assert sources(config)["weights"] == "org/model@main"


def test_random_weights_are_seed_and_architecture(config):
    config["model"] |= {"source": "random", "weights": None}
    first = sources(config)["weights"]
    assert first.startswith("random:seed=0,architecture=")
    config["model"]["architecture"]["hidden_size"] = 16
    second = sources(config)["weights"]
    config["seed"] = 1
    assert len({first, second, sources(config)["weights"]}) == 3


def test_a_local_model_is_its_bytes_wherever_it_lies(config, tmp_path):
    ids = []
    for name, weights in (("one", b"bytes"), ("two", b"bytes"), ("three", b"other")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text("{}")
        (folder / "README.md").write_text(name)
        config["model"]["path"] = str(folder)
        ids.append(run_id(config, sources(config)))
    assert ids[0] == ids[1] != ids[2]
    (tmp_path / "one" / "config.json").write_text('{"a": 1}')
    config["model"]["path"] = str(tmp_path / "one")
    assert run_id(config, sources(config)) != ids[0]


def test_local_data_is_one_sha256_over_names_and_contents(config, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.json").write_bytes(b"2")
    (tmp_path / "a.json").write_bytes(b"1")
    (tmp_path / "unread.json").write_bytes(b"3")
    config["task"] |= {"data_dir": str(tmp_path), "files": ["d/b.json", "a.json"]}
    lines = [f"{hashlib.sha256(text).hexdigest()}  {name}\n" for text, name in ((b"1", "a.json"), (b"2", "d/b.json"))]
    assert sources(config)["data"] == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_optional_files_count_when_they_are_there_and_a_named_training_file_always(config, tmp_path):
    (tmp_path / "a.json").write_bytes(b"1")
    (tmp_path / "mine.json").write_bytes(b"2")
    config["task"] |= {"data_dir": str(tmp_path), "files": ["a.json", "b.json"], "optional_files": ["b.json"]}
    found = [sources(config)["data"]]
    (tmp_path / "b.json").write_bytes(b"3")
    found.append(sources(config)["data"])
    config["task"]["train_file"] = "mine.json"
    found.append(sources(config)["data"])
    assert len(set(found)) == 3
    config["task"]["train_file"] = "gone.json"
    with pytest.raises(SourceError, match=r"textual_digits reads gone\.json, not found under"):
        sources(config)


def test_remote_data_is_repo_and_revision(config):
    config["task"] |= {"repo": "org/data", "revision": "abc"}
    assert sources(config)["data"] == "org/data@abc"
    config["task"] |= {"repo": None, "url": "https://example.org/x.tgz", "revision": None}
    assert sources(config)["data"] == "https://example.org/x.tgz"


def test_embedded_data_is_its_version(config):
    assert sources(config)["data"] == "embedded:textual_digits@1"


def test_a_missing_model_folder(config):
    config["model"]["path"] = "no/such/folder"
    with pytest.raises(SourceError, match=r"model\.path: there is no folder no/such/folder; give a folder with config"):
        sources(config)


def test_a_model_folder_without_weights(config, tmp_path):
    config["model"]["path"] = str(tmp_path)
    with pytest.raises(
        SourceError, match=r"model\.path: no \*\.safetensors in .*; save the model with save_pretrained"
    ):
        sources(config)


def test_missing_data_files_are_all_named(config, tmp_path):
    (tmp_path / "here.json").touch()
    config["task"] |= {"data_dir": str(tmp_path), "files": ["here.json", "x.json", "y.json"]}
    with pytest.raises(SourceError, match=r"task\.data_dir: textual_digits reads x\.json, y\.json, not found under"):
        sources(config)


def test_a_data_folder_for_embedded_data(config, tmp_path):
    config["task"]["data_dir"] = str(tmp_path)
    with pytest.raises(SourceError, match=r"task\.data_dir: textual_digits brings its own data and reads no files"):
        sources(config)


def test_the_files_of_the_probes_that_are_asked_count(config, tmp_path):
    for name in ("piqa.validation.jsonl", "gsm8k.test.jsonl"):
        (tmp_path / name).write_bytes(name.encode())
    probes = {"name": "probes/forgetting", "data_dir": str(tmp_path), "probes": ["piqa"]}
    config["forgetting"] = {**probes, "files": ["piqa.validation.jsonl", "gsm8k.test.jsonl", "gsm8k.train.jsonl"]}
    before = sources(config)["probes"]
    (tmp_path / "gsm8k.test.jsonl").write_bytes(b"other")
    assert sources(config)["probes"] == before
    (tmp_path / "piqa.validation.jsonl").write_bytes(b"other")
    assert sources(config)["probes"] != before
    config["forgetting"]["probes"] = ["gsm8k"]
    with pytest.raises(
        SourceError, match=r"forgetting\.data_dir: probes/forgetting reads gsm8k\.train\.jsonl, not found"
    ):
        sources(config)
    config["forgetting"] = {"name": "none"}
    assert "probes" not in sources(config)
