from pathlib import Path
from typing import Any

import pytest
from tests.training.tiny import rows

from tombola.training import AcceleratedTrainer, Settings
from tombola.training.launch import start_accelerator


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"launch\.kind must be one of single, ddp, zero2, zero3\. Got 'fsdp'"):
        start_accelerator({"kind": "fsdp"})


@pytest.mark.parametrize("kind", ["ddp", "zero2", "zero3"])
def test_many_processes_need_a_process_group(kind: str, monkeypatch: Any) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match=f"no process group was started. Type `python train.py launch={kind}"):
        start_accelerator({"kind": kind})


def test_single_on_many_processes_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"is single, but 2 processes were started\. Type launch=ddp"):
        start_accelerator({"kind": "single"})


def test_a_second_trainer_in_a_process_is_fine(tmp_path: Path) -> None:
    for name in ("one", "two"):
        trainer = AcceleratedTrainer(settings=Settings(), rows=rows(2), run_dir=tmp_path / name, pad_token_id=0)
        assert trainer.ranks.count == 1
