"""Windows, rewrites and dense gradients on two ranks end where they do on one."""

from pathlib import Path
from typing import Any

import pytest
from tests.training.test_launches import largest_differences, launch

TOLERANCE = 1e-6  # float32; the parameters of four groups, one of them a single number


@pytest.fixture(scope="module")
def single(repository: Path, tmp_path_factory: Any) -> Path:
    return launch(repository, "single", tmp_path_factory.mktemp("sparse") / "single", "sparse_launches")


@pytest.mark.recipe
@pytest.mark.parametrize("kind", ["ddp", "zero2", "zero3"])
def test_two_ranks_end_where_one_does(repository: Path, tmp_path: Path, single: Path, kind: str) -> None:
    if kind != "ddp":
        pytest.importorskip("deepspeed")
    largest = largest_differences(single, launch(repository, kind, tmp_path / kind, "sparse_launches"))
    assert set(largest) == {"windows", "stopped", "rewritten", "dense", "per entry", "few"}
    assert max(largest.values()) < TOLERANCE, largest
