"""What a phase is to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Plan:
    """A phase before it starts."""

    name: str
    total_steps: int
    factor: Callable[[int], float]  # on the learning rate, by step
    hooks: Sequence[Any]  # see protocol.Hook
    validate: Callable[[nn.Module], float] | None
    run_dir: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.run_dir / "checkpoints"

    @property
    def finished(self) -> Path:
        """Folder of the phase's result."""
        return self.run_dir / "phases" / self.name
