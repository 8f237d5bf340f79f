"""What methods see of training: the `Trainer`, its hooks, its history, and how it can stop."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn


class Interrupted(Exception):
    """A signal asked the run to stop; the state is in a checkpoint and the same command goes on from there."""


class NonFinite(Exception):
    """A loss or gradient norm was NaN or infinite and the settings say to stop, or rewinding did not help."""


@dataclass
class History:
    """What a phase cost and reached, over all its interruptions; work that was lost to a kill is not counted."""

    phase: str
    steps: int = 0
    losses: list[float] = field(default_factory=list)  # one an optimizer step; NaN where a step was skipped
    tokens: int = 0  # input tokens without padding, over all ranks
    seconds: float = 0.0  # wall time, validation and checkpoints included
    step_seconds: float = 0.0  # wall time of the optimizer steps alone
    skipped: int = 0
    rewinds: int = 0
    validations: list[tuple[int, float]] = field(default_factory=list)  # (step, metric)
    best: float | None = None
    best_step: int | None = None
    peak_bytes: int = 0  # CUDA: allocated at most, per rank; CPU: largest resident size of the process

    @property
    def tokens_per_second(self) -> float:
        """Throughput of the optimizer steps, 0.0 before the first."""
        return self.tokens / self.step_seconds if self.step_seconds else 0.0


class Hook(Protocol):
    """Called on every rank around each step that is taken. Either method may be left out.

    `before_step` sees whole gradients in `.grad` (under ZeRO through `deepspeed.utils.safe_get_full_grad`) and may
    change them; clipping comes after it. `optimizer` is torch's own, `step` counts from 0. Random generators are seeded
    from seed, phase and step around the calls: what a hook draws is the same on every rank and after a resume.
    """

    def before_step(self, model: nn.Module, optimizer: Any, step: int) -> None: ...  # noqa: D102
    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None: ...  # noqa: D102


class Trainer(Protocol):
    """Trains the parameters of a model that require gradients."""

    def train(
        self,
        model: nn.Module,
        *,
        phase: str,
        epochs: float | None = None,
        steps: int | None = None,
        hooks: Sequence[Any] = (),
    ) -> History:
        """The phase's history; `model` then holds its final values, whole, on every rank.

        Idempotent: a phase that this run has finished is loaded, one that was cut off goes on.
        """
        ...

    def gradients(self, model: nn.Module, *, batches: int) -> dict[str, Tensor]:
        """Mean gradient of each trainable parameter over so many optimizer batches, the same on every rank."""
        ...
