import json
import math
from pathlib import Path

from tombola.training.journal import Journal


def lines(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_lines_are_valid_json_even_of_a_diverged_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run" / "log.jsonl")
    journal.append({"phase": "train", "step": 1, "loss": math.nan, "grad_norm": math.inf, "lr": 0.1})
    assert (tmp_path / "run" / "log.jsonl").read_text() == (
        '{"phase": "train", "step": 1, "loss": null, "grad_norm": null, "lr": 0.1}\n'
    )


def test_resuming_forgets_later_steps_of_the_phase_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    for phase in ("search", "train"):
        for step in range(1, 5):
            journal.append({"phase": phase, "step": step})
            if step % 2 == 0:
                journal.append({"phase": phase, "step": step, "validation": 0.5})
    with path.open("a") as file:
        file.write('{"phase": "search", "st')
    journal.rewind("train", 2)
    found = [(line["phase"], line["step"], "validation" in line) for line in lines(path)]
    search = [(step, again) for step in range(1, 5) for again in ([False, True] if step % 2 == 0 else [False])]
    assert found == [("search", *entry) for entry in search] + [("train", 1, False), ("train", 2, False)]
    assert [item.name for item in tmp_path.iterdir()] == ["log.jsonl"]


def test_without_a_log_there_is_nothing_to_forget(tmp_path: Path) -> None:
    Journal(tmp_path / "log.jsonl").rewind("train", 3)
    assert not (tmp_path / "log.jsonl").exists()
