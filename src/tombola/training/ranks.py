"""What the processes of one run agree on, through accelerate."""

import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

T = TypeVar("T")


class Ranks:
    """The processes of a run; with one process every answer is its own."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.device = accelerator.device
        self.rank = accelerator.process_index
        self.count = accelerator.num_processes

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on every rank; the others wait for it."""
        made: list[Any] = [make() if self.first else None]
        return made[0] if self.count == 1 else broadcast_object_list(made)[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank."""
        return [value] if self.count == 1 else gather_object([value])

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.count > 1:
            torch.distributed.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether it holds on some rank."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)


def leave() -> None:
    """Ends this process's part in the group of ranks; models and trainers must be out of reach by then.

    gloo's threads let go of a collective's tensors some time after it has returned, for which they need the
    interpreter. One that is already shutting down aborts the whole process instead, and a finished run would be
    reported as failed (https://github.com/pytorch/pytorch/pull/179291). Ending the group joins those threads.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # a wrapped model that is only reachable from itself still holds the group
        torch.distributed.destroy_process_group()
