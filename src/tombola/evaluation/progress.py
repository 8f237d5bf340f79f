"""A progress bar that says how many examples are answered a second."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class ExamplesPerSecond(ProgressColumn):
    """The recent speed."""

    def render(self, task: Task) -> Text:
        """Text such as "12.3 examples/s"; empty until something is known."""
        return Text("" if task.speed is None else f"{task.speed:.1f} examples/s", style="progress.data.speed")


def evaluation_progress(console: Console | None = None) -> Progress:
    """Bars for evaluations: name, bar, done of all, speed, time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        ExamplesPerSecond(),
        TimeRemainingColumn(),
        console=console,
    )
