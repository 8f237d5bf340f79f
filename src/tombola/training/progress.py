"""Progress of a phase on the console: a live bar on a terminal, a line now and then elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class PhaseProgress:
    """Shows step, loss, learning rate, tokens a second and the time left; silent without a console."""

    def __init__(self, console: Console | None, phase: str, total: int):
        self.console = console
        self.phase = phase
        self.total = total
        self.last_line = time.monotonic()
        self.bar: Progress | None = None

    def __enter__(self) -> "PhaseProgress":
        if self.console is not None and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[text]}"), console=self.console)
            self.task = self.bar.add_task(self.phase, total=self.total, text="")
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, step: int, text: str) -> None:
        """Updates the bar, or prints a line if the last is some seconds old or the phase ends."""
        if self.bar is not None:
            self.bar.update(self.task, completed=step, text=text)
        elif self.console is not None:
            now = time.monotonic()
            if now - self.last_line >= SECONDS_BETWEEN_LINES or step == self.total:
                self.last_line = now
                self.console.print(f"{self.phase} {step}/{self.total}  {text}", highlight=False)
