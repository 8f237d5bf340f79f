"""A whole run in this process, on tiny models: from config.json to a record, twice, and after a divergence."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tombola import outcome
from tombola.run import FAILED, main, set_dropout
from tombola_cli.config.compose import compose
from tombola_cli.records import read_records, run_id, sources
from tombola_cli.run_folder import write_config


@pytest.fixture
def start(tmp_path: Path) -> Any:
    def prepare(*words: str) -> Path:
        fixed = ["training=smoke", f"runs.dir={tmp_path / 'runs'}", f"records.dir={tmp_path / 'records'}"]
        config = compose([*fixed, *words])
        found = sources(config)
        name = run_id(config, found)
        folder = tmp_path / "runs" / name
        write_config(folder, run_id=name, config=config, sources=found, command=["train.py", *words])
        return folder

    return prepare


def test_a_run_ends_in_a_record_with_scores_costs_and_provenance(start: Any, tmp_path: Path) -> None:
    folder = start("model=tiny_roberta", "method=bola")
    assert main(folder) == 0
    (record,) = read_records(tmp_path / "records")
    assert record.status == "ok"
    assert [(one.task, one.split, one.metric, one.n) for one in record.scores] == [
        ("textual_digits", "test", "accuracy", 4)
    ]
    adapter = folder / "adapter" / "adapter_model.safetensors"
    assert record.cost["stored_bytes"] == adapter.stat().st_size
    assert record.cost["trainable"] > 0
    assert record.cost["head"] > 0
    assert record.cost["steps"] == 3
    assert set(record.cost["seconds"]) == {"train", "evaluation"}
    assert record.ticket["unique_blocks"] <= record.ticket["candidates"]
    assert (folder / "ticket.png").stat().st_size > 1000
    assert str(tmp_path) not in json.dumps(record.provenance)


def test_what_a_method_tells_of_its_ticket_is_recorded(start: Any, tmp_path: Path) -> None:
    folder = start("model=tiny_llama", "method=rigsa", "method.n_prunings=1", "method.target_density=0.25")
    assert main(folder) == 0
    (record,) = read_records(tmp_path / "records")
    assert [one["density"] for one in record.ticket["rounds"]] == [1.0, 0.25]
    assert record.ticket["moved_share"] == 0.25
    assert set(record.cost["seconds"]) == {"round-0", "round-1", "evaluation"}


def test_the_densities_of_a_search_are_recorded_and_drawn(start: Any, tmp_path: Path) -> None:
    folder = start("model=tiny_roberta", "method=partial_lora", "method.head_steps=2")
    assert main(folder) == 0
    (record,) = read_records(tmp_path / "records")
    densities = record.ticket["densities"]
    assert len(densities) == len(record.ticket["layers"]) == 4
    assert all(0 <= density <= 1 for density in densities.values())
    assert record.ticket["evaluations"] <= 1 + 5 * 4
    assert (folder / "densities.png").stat().st_size > 1000
    assert set(record.cost["seconds"]) == {"head", "densities", "train", "evaluation"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of noise in the files of vision/cifar10."""
    noise = np.random.default_rng(0)
    for part, rows in (("train", 12), ("test", 6)):
        arrays = {"images-idx4": noise.integers(0, 256, (rows, 20, 20, 3)), "labels-idx1": np.arange(rows) % 3}
        for name, values in arrays.items():
            header = b"\x00\x00\x08" + struct.pack(f">B{values.ndim}I", values.ndim, *values.shape)
            content = gzip.compress(header + values.astype(np.uint8).tobytes())
            (tmp_path / f"cifar10-{part}-{name}-ubyte.gz").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("method", ["lora", "bola"])
def test_images_go_end_to_end(start: Any, tmp_path: Path, images: Path, method: str) -> None:
    words = ("model=tiny_vit", f"method={method}", "task=vision/cifar10", "task.labels=3", f"task.data_dir={images}")
    assert main(start(*words)) == 0
    (record,) = read_records(tmp_path / "records")
    assert [(one.task, one.split, one.metric, one.n) for one in record.scores] == [
        ("vision/cifar10", "test", "accuracy", 4)
    ]
    assert record.provenance["data"]["note"] == "images of task.data_dir: 12 train, 6 test"
    assert record.cost["head"] == 3 * 64 + 3


def test_flan_goes_end_to_end_with_a_score_for_each_task(start: Any, tmp_path: Path) -> None:
    rows, names = {"train": 4, "validation": 2, "test": 3}, ("one", "two")
    for split, count in rows.items():
        lines = [json.dumps({"task_name": t, "source": f"{t} {n}", "target": "a"}) for n in range(count) for t in names]
        (tmp_path / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    listed = {"held_in": ["one"], "held_out": ["two"], "tasks": [{"task_name": name, "rows": rows} for name in names]}
    (tmp_path / "tasks.json").write_text(json.dumps(listed))
    words = ("task=flan/flan20", f"task.data_dir={tmp_path}", "task.task_name=one", "task.test_on=all")
    assert main(start("model=tiny_llama", "method=lora", *words, "task.max_new_tokens=4")) == 0
    (record,) = read_records(tmp_path / "records")
    assert [(one.task, one.split, one.metric, one.n) for one in record.scores] == [
        ("flan/flan20", "one", "rouge_l", 3),
        ("flan/flan20", "two", "rouge_l", 3),
    ]
    assert record.cost["steps"] == 3


def test_equal_trainable_numbers_for_lora_and_bola_in_the_demo() -> None:
    """`make demo` compares adapters of one size: BoLA's count equals LoRA's where in_divs * out_divs is the width."""
    configs = {name: compose(["training=demo", f"method={name}"]) for name in ("lora", "bola")}
    lora, bola = (configs[name]["method"]["config"] for name in ("lora", "bola"))
    width = configs["bola"]["model"]["architecture"]["hidden_size"]
    assert bola["in_divs"] * bola["out_divs"] == width
    assert bola["k"] == lora["r"]
    assert bola["target_modules"] == lora["target_modules"]


def test_forced_again_begins_anew_and_keeps_the_first_record(start: Any, tmp_path: Path) -> None:
    folder = start("model=tiny_llama", "method=lora")
    assert main(folder) == 0
    first = outcome.checksum(folder / "adapter")
    log = (folder / "log.jsonl").read_text()
    (folder / "exported" / "merged").mkdir(parents=True)
    folder = start("model=tiny_llama", "method=lora", "force=true")
    assert main(folder) == 0
    assert not (folder / "exported").exists(), "it would be of the run before"
    assert outcome.checksum(folder / "adapter") == first
    assert len((folder / "log.jsonl").read_text().splitlines()) == len(log.splitlines())
    assert len(read_records(tmp_path / "records")) == 2


def test_a_diverged_run_is_a_record_with_that_status(start: Any, tmp_path: Path, capsys: Any) -> None:
    folder = start("model=tiny_llama", "method=lora", "training.lr=1e30", "training.warmup_ratio=0")
    assert main(folder) == FAILED
    (record,) = read_records(tmp_path / "records")
    assert record.status == "diverged"
    assert record.scores == []
    assert "training.lr" in capsys.readouterr().out


def test_a_users_mistake_is_one_line_and_no_record(start: Any, tmp_path: Path, capsys: Any) -> None:
    folder = start("model=tiny_llama", "method=lora", "training.validation_rows=5000")
    assert main(folder) == FAILED
    assert "validation_rows=5000" in capsys.readouterr().out
    assert read_records(tmp_path / "records") == []


def test_the_best_checkpoint_is_chosen_by_the_tasks_metric_or_the_loss(start: Any, tmp_path: Path) -> None:
    for model in ("tiny_roberta", "tiny_llama"):
        folder = start(
            f"model={model}", "training.select=best", "training.validation_rows=8", "training.validate_every=1"
        )
        assert main(folder) == 0
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        values = [line["validation"] for line in lines if "validation" in line]
        assert len(values) == 3
        assert all(value < 0 for value in values) == (model == "tiny_llama")


def test_the_frozen_models_dropout_can_be_switched_off() -> None:
    net = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.3)))
    set_dropout(net, 0.0)
    assert [module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("method=sparse_adapter", "method.score=mcss"), "error: method=sparse_adapter: score must be one of mcs, "),
        (("method=rosa", "method.config.r=-1"), "error: method=rosa: r="),
        (("method=lora_dash", "method.config.directions=9999"), "error: LoraDashConfig: directions="),
        (("method=lora", "method.config.target_modules=[nowhere]"), "error: LoraConfig: Target modules {'nowhere'}"),
    ],
)
def test_a_value_that_the_method_refuses_is_one_line_and_no_traceback(start: Any, capsys: Any, words: Any, told: str):
    assert main(start("model=tiny_llama", *words)) == FAILED
    assert told in capsys.readouterr().out


def test_each_way_to_answer_has_metrics_of_its_own(start: Any, tmp_path: Path, data_folder: Path) -> None:
    words = ["model=tiny_llama", "method=base", "task=commonsense", "task.test_sets=[OBQA]", "task.num_beams=1"]
    for answer_by in ("generate", "likelihood"):
        assert main(start(*words, f"task.data_dir={data_folder / 'llm_adapters'}", f"task.answer_by={answer_by}")) == 0
    records = {record.config["task"]["answer_by"]: record for record in read_records(tmp_path / "records")}
    found = {way: [(one.split, one.metric, one.n) for one in record.scores] for way, record in records.items()}
    assert found == {
        "generate": [("OBQA", "accuracy_as_paper", 4), ("OBQA", "accuracy_strict", 4)],
        "likelihood": [("OBQA", "accuracy_likelihood", 4)],
    }
    assert "no training rows of PIQA, HellaSwag, WinoGrande" in records["generate"].provenance["data"]["note"]


@pytest.fixture
def stsb(tmp_path: Path) -> str:
    """Twelve pairs to train on and five to report on, in STS-B's layout."""
    folder = tmp_path / "glue" / "STS-B"
    folder.mkdir(parents=True)
    for part, rows in (("train", 12), ("dev", 5)):
        lines = [f"{number}\ta text\tthe text {number}\t{number % 5}.250" for number in range(rows)]
        (folder / f"{part}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tscore", *lines]))
    return f"task.data_dir={tmp_path / 'glue'}"


def test_a_regression_on_pairs_is_chosen_and_reported_on_dev(start: Any, stsb: str, tmp_path: Path) -> None:
    words = ("task=glue/stsb", stsb, "task.check_rows=false", "training.validate_every=1", "training.max_eval_rows=5")
    folder = start("model=tiny_roberta", "method=lora", "training.select=best", *words)
    assert main(folder) == 0
    (record,) = read_records(tmp_path / "records")
    (score,) = record.scores
    assert (score.task, score.split, score.metric, score.n) == ("glue/stsb", "validation", "pearson", 5)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert score.value == pytest.approx(max(line["validation"] for line in lines if "validation" in line))
    assert "train is a copy of 12 rows, not GLUE's own of 5,749" in record.provenance["data"]["note"]
    assert "makes a best epoch's score optimistic" in record.provenance["data"]["note"]
    assert (record.cost["head"], record.cost["trainable"]) == (64 * 64 + 64 + 64 + 1, 4096)


def test_the_majority_is_a_record_like_any_other(start: Any, stsb: str, tmp_path: Path) -> None:
    folder = start("model=tiny_roberta", "method=majority", "task=glue/stsb", stsb, "task.check_rows=false")
    assert main(folder) == 0
    (record,) = read_records(tmp_path / "records")
    assert [(score.metric, score.value) for score in record.scores] == [("pearson", 0.0)]
    assert record.cost["trainable"] == record.cost["steps"] == 0
