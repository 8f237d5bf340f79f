"""The tie between a run's processes: none outlives the one that started it, and a signal to the first reaches all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
EX_TEMPFAIL = 75  # <sysexits.h>: stopped after a checkpoint, so start it again
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent() -> None:
    """Have Linux kill this process when its parent dies: a run killed hard leaves no rank behind that writes on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def forwarding(children: Callable[[], list[int]]) -> Iterator[list[int]]:
    """Passes signals on to `children()` (process ids) instead of acting on them; gives the list of those that came.

    One inside another tells the outer one as well: a sweep learns of the signal that ended its job.
    """
    arrived: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        for child in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
        outer = before[signal.Signals(number)]
        if callable(outer) and outer is not signal.default_int_handler:
            outer(number, frame)

    before = {number: signal.signal(number, pass_on) for number in FORWARDED}
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
