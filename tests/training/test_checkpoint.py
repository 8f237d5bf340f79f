import math
from pathlib import Path

import torch

from tombola.training import checkpoint
from tombola.training.checkpoint import Checkpoint
from tombola.training.protocol import History


def example(steps: int = 3) -> Checkpoint:
    history = History(
        "train", steps=steps, losses=[0.1, math.nan, 1 / 3], validations=[(2, 0.5)], best=0.5, best_step=2
    )
    return Checkpoint(
        fingerprint={"phase": "train", "seed": 1},
        history=history,
        redraws=[(0, 12)],
        random=[{"torch": "00ff"}],
        values={"layer.weight": torch.randn(2, 3), "layer.index": torch.tensor([3, 1])},
        optimizer={"exp_avg/layer.weight": torch.randn(2, 3), "step/layer.weight": torch.tensor(3.0)},
        best={"layer.weight": torch.randn(2, 3).to(torch.bfloat16)},
    )


def test_what_is_written_is_read_back_to_the_bit(tmp_path: Path) -> None:
    made = example()
    checkpoint.write(made, tmp_path / "train-3")
    read = checkpoint.read(tmp_path / "train-3")
    for name in ("values", "optimizer", "best"):
        tensors, found = getattr(made, name), getattr(read, name)
        assert tensors.keys() == found.keys()
        assert all(torch.equal(tensors[key], found[key]) for key in tensors)
        assert all(tensors[key].dtype == found[key].dtype for key in tensors)
    assert repr(read.history) == repr(made.history)
    assert (read.fingerprint, read.redraws, read.random) == (made.fingerprint, made.redraws, made.random)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    checkpoint.write(example(), tmp_path / "train-3")
    names = {path.suffix for path in (tmp_path / "train-3").iterdir()}
    assert names == {".safetensors", ".json"}


def test_the_newest_is_by_step_and_of_its_own_phase(tmp_path: Path) -> None:
    for name in ("train-9", "train-10", "train-x-11", "search-12"):
        checkpoint.write(example(), tmp_path / name)
    assert checkpoint.newest(tmp_path, "train") == tmp_path / "train-10"
    assert checkpoint.newest(tmp_path, "train-x") == tmp_path / "train-x-11"
    assert checkpoint.newest(tmp_path, "other") is None
    assert checkpoint.newest(tmp_path / "none", "train") is None


def test_a_torn_one_is_passed_over_and_removed(tmp_path: Path) -> None:
    for step in (9, 10):
        checkpoint.write(example(), tmp_path / f"train-{step}")
    (tmp_path / "train-10" / "values.safetensors").write_bytes(b"")
    assert checkpoint.newest(tmp_path, "train") == tmp_path / "train-9"
    assert not (tmp_path / "train-10").exists()


def test_all_but_the_newest_are_removed(tmp_path: Path) -> None:
    for name in ("train-3", "train-6", "train-12", "search-1"):
        checkpoint.write(example(), tmp_path / name)
    checkpoint.remove_all_but(2, tmp_path, "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search-1", "train-12", "train-6"]
    checkpoint.remove_all_but(0, tmp_path, "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search-1"]
