"""FSDP on two real gloo ranks; ZeRO is trained through the trainer's tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.recipe
@pytest.mark.parametrize("engine", ["fsdp1", "fsdp1_original", "fsdp2"])
def test_two_ranks_end_where_one_process_ends(engine, repository: Path):
    paths = os.pathsep.join(str(repository / part) for part in ("src", "."))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(repository / "tests" / "adapters" / "sharded_run.py"), engine],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("largest difference")]
    assert float(line.split()[-1]) < 1e-5
