"""Texts by vLLM. vLLM itself is not run here (it wants a GPU); `stand_in/vllm.py` says what stands in for it."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import tombola
from tombola.evaluation import VllmFailed, vllm_writer
from tombola.evaluation.generate import continuations
from tombola.models import load_host
from tombola.run import FAILED, main
from tombola.tasks import Generation
from tombola.writer import by_vllm, evaluation_device, plain_checkpoint, writer
from tombola_cli.config.compose import compose
from tombola_cli.records import read_records, run_id, sources
from tombola_cli.run_folder import write_config

STAND_IN = Path(__file__).parent / "evaluation" / "stand_in"
WORDS = ("model=tiny_llama", "task=textual_digits", "evaluation.generate=vllm")
TEXTS: Any = SimpleNamespace(answers_by="generate")
PROMPTS = ["Once", "A rather longer beginning", "1 + 1 = "]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))


def host_of(config: dict[str, Any]) -> Any:
    return load_host(config["model"], kind="generate", labels=0, seed=0)


def adapted(config: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """A host and its model with a saved adapter that changes what is said."""
    host = host_of(config)
    adapter = tombola.BolaConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], k=4, in_divs=4, out_divs=4
    )
    model = get_peft_model(host.net, adapter).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return host, model


@pytest.mark.parametrize("generation", [Generation(6), Generation(1)])
def test_merged_weights_say_what_the_adapter_says(tmp_path: Path, generation: Generation) -> None:
    config = compose(list(WORDS))
    host, model = adapted(config, tmp_path)
    ids = [host.processor(prompt)["input_ids"] for prompt in PROMPTS]
    with torch.no_grad():
        expected = continuations(model, ids, host.processor, generation)
        base = continuations(host_of(config).net, ids, host.processor, generation)
    assert expected != base
    with writer(config, TEXTS, model, host, tmp_path / "adapter", tmp_path) as write:
        assert write is not None
        assert write(ids, generation) == expected
        assert write(ids[:1], generation) == expected[:1]  # one process answers again and again
    stop = expected[0][1:3]
    if stop:
        with writer(config, TEXTS, model, host, tmp_path / "adapter", tmp_path) as write:
            assert write is not None
            assert write(ids[:1], Generation(6, 1, (stop,))) == [expected[0][: expected[0].index(stop) + len(stop)]]
    printed = (tmp_path / "vllm.log").read_text()
    assert "noise on standard output" in printed
    assert "dtype float32" in printed  # left to itself, vLLM would halve it


def test_the_checkpoint_is_made_once_and_loads_by_itself(tmp_path: Path) -> None:
    config = compose(list(WORDS))
    host, model = adapted(config, tmp_path)
    folder = plain_checkpoint(config, model, host, tmp_path / "adapter", tmp_path)
    made = (folder / "config.json").stat().st_mtime_ns
    assert plain_checkpoint(config, model, host, tmp_path / "adapter", tmp_path) == folder
    assert (folder / "config.json").stat().st_mtime_ns == made
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=ids).logits
        assert torch.allclose(merged, model(input_ids=ids).logits, atol=1e-4)
    assert AutoTokenizer.from_pretrained(folder)("Once")["input_ids"] == host.processor("Once")["input_ids"]


def test_the_base_model_and_whole_checkpoints(tmp_path: Path) -> None:
    config = compose(list(WORDS))
    host = host_of(config)
    (tmp_path / "adapter").mkdir()
    folder = plain_checkpoint(config, host.net, host, tmp_path / "adapter", tmp_path)
    assert (folder / "model.safetensors").is_file()
    assert plain_checkpoint(config, host.net, host, folder, tmp_path / "other") == folder  # saved as one


def test_only_texts_are_vllms(tmp_path: Path) -> None:
    config = compose(list(WORDS))
    assert by_vllm(config, TEXTS)
    assert evaluation_device(config, TEXTS, torch.device("cuda:0" if torch.cuda.is_available() else "cpu")) == "cpu"
    classes = SimpleNamespace(answers_by="classify")
    for words, task in ((["model=tiny_roberta", "evaluation.generate=vllm"], classes), (["model=tiny_llama"], TEXTS)):
        other = compose(words)
        assert evaluation_device(other, task, torch.device("meta")) == "meta"
        with writer(other, task, torch.nn.Identity(), None, tmp_path, tmp_path) as write:  # type: ignore[arg-type]
            assert write is None
    config.pop("evaluation")  # a run folder from before the option
    assert not by_vllm(config, TEXTS)


def test_a_process_that_ends_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vllm.py").write_text("raise SystemExit('no GPU here')")
    host = host_of(compose(list(WORDS)))
    log = tmp_path / "vllm.log"
    options = {"python": sys.executable, "model": host.net, "tokenizer": host.processor, "dtype": "float32"}
    with (
        vllm_writer(tmp_path, **options, log=log) as write,
        pytest.raises(VllmFailed, match=r"vLLM ended before it had answered; see the end of .*vllm\.log"),
    ):
        write([[1, 2]], Generation(2))
    assert "no GPU here" in log.read_text()


def test_a_whole_run_by_vllm(tmp_path: Path) -> None:
    """Scores are those of the same run by transformers, and so is its identity: how it is computed is outside."""
    scores, names = {}, set()
    for engine in ("transformers", "vllm"):
        words = [
            *("model=tiny_llama", "method=lora", "training=smoke", f"evaluation.generate={engine}"),
            *(f"runs.dir={tmp_path / engine}", f"records.dir={tmp_path / 'records' / engine}"),
        ]
        config = compose(words)
        found = sources(config)
        names.add(run_id(config, found))
        folder = tmp_path / engine / run_id(config, found)
        write_config(folder, run_id=folder.name, config=config, sources=found, command=["train.py", *words])
        assert main(folder) == 0
        (record,) = read_records(tmp_path / "records" / engine)
        scores[engine] = [(one.metric, one.value, one.n) for one in record.scores]
        assert record.config["evaluation"]["generate"] == engine
        answers = (folder / "answers" / "textual_digits-test.jsonl").read_text().splitlines()
        assert len(answers) == 1 + 4
        assert "answer" in json.loads(answers[1])
    assert len(names) == 1
    assert scores["vllm"] == scores["transformers"]


def test_a_run_whose_vllm_fails_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vllm.py").write_text("raise SystemExit('no GPU here')")
    words = ["model=tiny_llama", "method=base", "training=smoke", "evaluation.generate=vllm"]
    config = compose([*words, f"runs.dir={tmp_path}", f"records.dir={tmp_path / 'records'}"])
    write_config(tmp_path / "run", run_id="run", config=config, sources=sources(config), command=["train.py"])
    assert main(tmp_path / "run") == FAILED
    assert "error: vLLM ended before it had answered" in capsys.readouterr().out
