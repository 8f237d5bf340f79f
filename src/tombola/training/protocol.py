"""What methods see of training: the `Trainer`, its hooks, its history, and how it can stop."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from tombola.training.plan import Window
from tombola.training.progress import PhaseProgress
from tombola.training.rewrite import Rewrite


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
        window: Window | None = None,
        optimizer: Mapping[str, Tensor] | None = None,
        keep_optimizer: bool = False,
    ) -> History:
        """The phase's history; `model` then holds its final values, whole, on every rank.

        Idempotent: a phase that this run has finished is loaded, one that was cut off goes on. `window` makes it a part
        of a longer training, which counts for `select=best` only in its last part: the others end with their last step.
        `optimizer` is the state to start from, whole tensors by "key/parameter name"; `keep_optimizer` stores the final
        one beside the values.
        """
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        ...

    @property
    def labels(self) -> list[int] | list[float]:
        """The class or number of each training row. Raises ValueError for rows of language models."""
        ...

    def total_steps(self, epochs: float | None = None) -> int:
        """Optimizer steps of so many epochs (None: the settings'), under the cap on steps."""
        ...

    def optimizer_state(self, phase: str) -> dict[str, Tensor]:
        """The optimizer's tensors at the end of a phase that kept them, by "key/parameter name", on the CPU."""
        ...

    def rewrite(self, model: nn.Module, rewrites: Mapping[str, Rewrite]) -> None:
        """Inside a hook: new content for trained parameters, by name, in place and of the same shape.

        Call it in `after_step`: a gradient that is there in `before_step` would still be of the old entries.
        """
        ...

    def dense_gradients(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        see: Callable[[str, Tensor], None],
        *,
        phase: str,
        step: int,
        rows: int | None = None,
    ) -> None:
        """Calls `see(path, G)` for each linear layer (nn.Linear or a tuner's) with its effective weight's gradient.

        G (out, in), at least float32, is that of the mean loss of optimizer batch `step` of the data order `phase` (the
        name of a phase or of a window's whole), or of the batch's first `rows`, over all ranks; run as one micro-batch
        a rank. One G is alive at a time, in backward's order; a layer that a forward uses twice is seen twice, with a
        part each. Works inside a hook and between phases; no parameter, `.grad` or random state changes. `see` is
        called on every rank with the same G.
        """
        ...

    def note(self, phase: str, numbers: Mapping[str, float]) -> None:
        """A line of the method's own numbers in `log.jsonl` and the tracker.

        Inside a hook it belongs to the step; between phases to the end of `phase`. A resume does not repeat it.
        """
        ...

    def gradients(self, model: nn.Module, *, batches: int) -> dict[str, Tensor]:
        """Mean gradient of each trainable parameter over so many optimizer batches, the same on every rank."""
        ...

    def few_shot(self, *, per_class: int, share: float) -> AbstractContextManager[None]:
        """Inside, the training rows are `per_class` of each class, or a `share` of rows that have none.

        Phases, steps of an epoch, gradients and `accuracy` are then those of the few; which, the seed decides.
        """
        ...

    def accuracy(self, model: nn.Module) -> float:
        """Share of the rows, of a language model of the labelled tokens, predicted right; without dropout.

        The same on every rank. Raises ValueError for a model with a single output.
        """
        ...

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors that `make` gives, made once a run: kept in its folder, and read from there by a resume.

        `make` is called on every rank; all get the first rank's, on the CPU. `name` must be no phase's. Its seconds go
        into the record, beside those of the phases.
        """
        ...

    def progress(self, name: str, total: int) -> PhaseProgress:
        """A context whose `show(done, text)` tells how far a method's own work has come."""
        ...
