"""DDP, ZeRO-2 and ZeRO-3 on two ranks end where a single process does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.training.test_kills import adapter, drive

HANDOVER = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from tests.training.launches import ADAPTERS, finish

left = Path(sys.argv[1])
done = {name: finish("single", left / f"handover-{name}", name) for name in ADAPTERS}
flat = {f"{adapter}|{name}": t for adapter, tensors in done.items() for name, t in tensors.items()}
save_file(flat, left / "handover.safetensors")
"""
TOLERANCE = 1e-5  # float32; a step is not clipped alike, or a token is weighted otherwise, and it is 1e-3


def largest_differences(one: Path, other: Path) -> dict[str, float]:
    """Per job, over whole tensors of the same names and shapes."""
    expected, found = load_file(one / "results.safetensors"), load_file(other / "results.safetensors")
    assert {name: t.shape for name, t in expected.items()} == {name: t.shape for name, t in found.items()}
    largest: dict[str, float] = {}
    for name, tensor in expected.items():
        job = name.partition("|")[0]
        largest[job] = max(largest.get(job, 0.0), float((tensor - found[name]).abs().max()))
    return largest


def launch(repository: Path, kind: str, folder: Path, jobs: str = "launches") -> Path:
    """The folder with the results of every job under a launch."""
    folder.mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    ranks = [] if kind == "single" else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, "-W", "ignore", *ranks, "-m", f"tests.training.{jobs}", kind, str(folder)]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    return folder


@pytest.fixture(scope="module")
def single(repository: Path, tmp_path_factory: Any) -> Path:
    return launch(repository, "single", tmp_path_factory.mktemp("launches") / "single")


@pytest.mark.recipe
@pytest.mark.parametrize("kind", ["ddp", "zero2", "zero3"])
def test_two_ranks_end_where_one_does(repository: Path, tmp_path: Path, single: Path, kind: str) -> None:
    if kind != "ddp":
        pytest.importorskip("deepspeed")
    largest = largest_differences(single, launch(repository, kind, tmp_path / kind))
    assert len(largest) == 16
    for job, difference in largest.items():
        # bfloat16 products of differently padded micro-batches are rounded differently
        assert difference < (5e-3 if job.startswith("half") else TOLERANCE), (job, difference)
    handed_over(repository, tmp_path / kind, single)


def handed_over(repository: Path, left: Path, single: Path) -> None:
    """One process goes on from a checkpoint of two ranks, whose optimizer state was in pieces."""
    command = [sys.executable, "-W", "ignore", "-c", HANDOVER, str(left)]
    environment = {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=repository, env=environment, check=True, timeout=300)
    expected, found = load_file(single / "results.safetensors"), load_file(left / "handover.safetensors")
    assert len(found) == 2 * 4 * 2  # adapters x layers x tensors
    for name, tensor in found.items():
        assert float((tensor - expected[f"interrupted, {name}"]).abs().max()) < TOLERANCE, name


def test_ddp_by_quick_check(repository: Path, tmp_path: Path) -> None:
    # Plain descent: Adam's steps are the same at any scale of the gradient.
    job = {"adapter": "bola", "settings": {"optimizer": "sgd", "lr": 0.1, "max_grad_norm": None}}
    specs = [{**job, "run_dir": str(tmp_path / "single")}]
    ddp = {**job, "kind": "ddp", "nproc": 2}
    specs += [{**ddp, "run_dir": str(tmp_path / name)} for name in ("ddp", "again")]
    assert drive(repository, tmp_path, specs) == [[0], [0, 0], [0, 0]]
    assert adapter(tmp_path / "ddp") == adapter(tmp_path / "again")
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("single", "ddp"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < TOLERANCE
    assert any(bool((value != 0).any()) for name, value in two.items() if "values" in name)
