"""SIGTERM and SIGUSR1 as a request that the loop reads between steps.

Schedulers send one of them some time before they kill a job.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether a signal has arrived."""

    arrived = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.arrived = True


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Notes the signals instead of dying of them; handlers are put back after. Off the main thread it notes nothing."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
