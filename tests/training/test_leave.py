"""The end of a run of several ranks: no thread of the group may outlive it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tombola.training import leave


def gloo_threads() -> int:
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum("gloo_runloop" in name for name in names)


@pytest.fixture
def group(tmp_path: Path) -> Any:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_the_groups_threads_end_with_it_even_if_a_model_is_only_reachable_from_itself(group: Any) -> None:
    model = DistributedDataParallel(torch.nn.Linear(3, 3))
    model(torch.ones(1, 3)).sum().backward()
    model.module.itself = [model]  # as a hook's closure makes it
    assert gloo_threads() > 0
    del model
    leave()
    assert not torch.distributed.is_initialized()
    assert gloo_threads() == 0


def test_one_process_has_nothing_to_leave() -> None:
    leave()
    assert not torch.distributed.is_initialized()
