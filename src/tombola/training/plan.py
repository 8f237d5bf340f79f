"""What a phase is to do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Window:
    """A phase as the steps from `first` on of a longer training, `total` steps long and named `whole`.

    Learning rate, data order and epoch are those of the whole; phases that share a whole and follow one another, each
    from the optimizer state of the one before, are that training cut in pieces.
    """

    whole: str
    first: int
    total: int


@dataclass(frozen=True)
class Plan:
    """A phase before it starts."""

    name: str
    total_steps: int
    window: Window  # of a phase that is no part of another: all of itself
    whole_factor: Callable[[int], float]  # on the learning rate, by step of the whole
    hooks: Sequence[Any]  # see protocol.Hook
    validate: Callable[[nn.Module], float] | None
    run_dir: Path
    redraws: tuple[tuple[int, int], ...] = ()  # of the data order, by earlier phases of the whole
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)  # state to start from
    keeps_optimizer: bool = False

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.run_dir / "checkpoints"

    @property
    def finished(self) -> Path:
        """Folder of the phase's result."""
        return self.run_dir / "phases" / self.name

    @property
    def ends_whole(self) -> bool:
        """Whether nothing of the whole comes after this phase."""
        return self.window.first + self.total_steps == self.window.total

    def step(self, done: int) -> int:
        """The step of the whole at which the phase stands after `done` of its own."""
        return self.window.first + done

    def factor(self, step: int) -> float:
        """The factor on the learning rate at a step of the phase."""
        return self.whole_factor(self.step(step))
