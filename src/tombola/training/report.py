"""Where a step's numbers go: `log.jsonl`, the tracker and the console, all on rank 0 alone."""

from typing import Any

from torch import nn

from tombola.training.journal import Journal
from tombola.training.measures import unique_blocks
from tombola.training.progress import PhaseProgress
from tombola.training.protocol import History
from tombola.training.trackers import Tracker

STEPS_BETWEEN_MEASURES = 20  # asking every layer for its blocks costs some launches a layer


class Report:
    """Tells of a phase's steps."""

    def __init__(self, journal: Journal, tracker: Tracker, progress: PhaseProgress, *, first: bool, steps_before: int):
        self.journal = journal
        self.tracker = tracker
        self.progress = progress
        self.first = first
        self.steps_before = steps_before  # of earlier phases: trackers want steps that only grow

    def step(self, line: dict[str, Any], history: History, model: nn.Module) -> None:
        """Tells of an optimizer step. Called on every rank, for under ZeRO-3 reading the scores takes them all."""
        if line["step"] % STEPS_BETWEEN_MEASURES == 0 or line["step"] == self.progress.total:
            line = {**line, **unique_blocks(model)}
        if not self.first:
            return
        self.journal.append(line)
        numbers = {key: value for key, value in line.items() if key not in ("phase", "step", "skipped")}
        self.tracker.numbers(_named(line["phase"], numbers), self.steps_before + line["step"])
        speed = history.tokens_per_second
        self.progress.show(line["step"], f"loss {line['loss']:.4f}  lr {line['lr']:.2e}  {speed:,.0f} tokens/s")

    def validation(self, phase: str, step: int, value: float) -> None:
        """Tells of a validation after `step` steps."""
        if self.first:
            self.journal.append({"phase": phase, "step": step, "validation": value})
            self.tracker.numbers(_named(phase, {"validation": value}), self.steps_before + step)

    def resume(self, phase: str, step: int) -> None:
        """Forgets what the journal says of later steps."""
        if self.first:
            self.journal.rewind(phase, step)


def _named(phase: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{phase}/{key}": value for key, value in numbers.items()}
