"""The low-rank tuners and PiLoRA's hits are on two ranks what they are on one."""

from pathlib import Path
from typing import Any

import pytest
from tests.training.low_rank_launches import CONFIGS
from tests.training.test_launches import largest_differences, launch

TOLERANCE = 1e-5  # float32; a hit more or less is 1


@pytest.fixture(scope="module")
def single(repository: Path, tmp_path_factory: Any) -> Path:
    return launch(repository, "single", tmp_path_factory.mktemp("low_rank") / "single", "low_rank_launches")


@pytest.mark.recipe
@pytest.mark.parametrize("kind", ["ddp", "zero2", "zero3"])
def test_two_ranks_end_where_one_does(repository: Path, tmp_path: Path, single: Path, kind: str) -> None:
    if kind != "ddp":
        pytest.importorskip("deepspeed")
    largest = largest_differences(single, launch(repository, kind, tmp_path / kind, "low_rank_launches"))
    assert set(largest) == {*CONFIGS, "hits"}
    assert max(largest.values()) < TOLERANCE, largest
