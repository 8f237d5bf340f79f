"""The `Trainer` that methods see: phases that are idempotent, resumable and the same on one process or many."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from tombola.training import archive, checkpoint, random_state
from tombola.training.batches import Row
from tombola.training.conditions import activation_checkpointing, deterministic
from tombola.training.feed import Feed
from tombola.training.gradients import mean_gradients
from tombola.training.interrupt import stop_signals
from tombola.training.journal import Journal
from tombola.training.launch import attach, start_accelerator
from tombola.training.measures import reset_peak_bytes
from tombola.training.optimizer import build_schedule
from tombola.training.phase import Phase
from tombola.training.plan import Plan
from tombola.training.progress import PhaseProgress
from tombola.training.protocol import History, Interrupted, NonFinite
from tombola.training.ranks import Ranks
from tombola.training.report import Report
from tombola.training.settings import Settings
from tombola.training.trackers import Log, Tracker
from tombola.training.weights import check_fit, copy_into, trained_tensors

PHASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class AcceleratedTrainer:
    """Trains on `rows` and keeps its state in `run_dir`.

    `validate` gives a metric of a model, larger is better; it is called on every rank, with the model in eval mode.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        rows: Sequence[Row],
        run_dir: Path,
        pad_token_id: int,
        padding_side: str = "right",
        launch: dict[str, Any] | None = None,
        log: Log | None = None,
        validate: Callable[[nn.Module], float] | None = None,
        console: Console | None = None,
    ):
        if settings.select == "best" and validate is None:
            raise ValueError("training.select=best needs a validation metric: set training.validation_rows above 0.")
        self.settings = settings
        self.run_dir = Path(run_dir)
        self.validate = validate
        self.console = console
        self.accelerator = start_accelerator(launch or {}, max_grad_norm=settings.max_grad_norm)
        self.ranks = Ranks(self.accelerator)
        self.feed = Feed(rows, settings, pad_token_id=pad_token_id, padding_side=padding_side, ranks=self.ranks)
        self.tracker = Tracker(self.accelerator, log or Log(), self.run_dir)
        self.histories: dict[str, History] = {}  # of the phases so far
        self.steps_before = 0

    def train(
        self,
        model: nn.Module,
        *,
        phase: str,
        epochs: float | None = None,
        steps: int | None = None,
        hooks: Sequence[Any] = (),
    ) -> History:
        """The phase's history; `model` then holds its final values, whole, in eval mode, on every rank.

        A finished phase is loaded, one that was cut off goes on from its newest complete checkpoint. Random generators
        are left in a state that depends on the seed and the phase's name alone, the same on every rank.
        """
        if not PHASE_NAME.fullmatch(phase):
            raise ValueError(f"A phase's name is letters, digits, dots, dashes and underscores. Got {phase!r}.")
        plan = self._plan(phase, epochs, steps, hooks)
        if self.ranks.from_first(lambda: archive.is_complete(plan.finished)):
            history = self._load(model, plan)
        else:
            with stop_signals() as stop:
                with self._running(model, plan) as running:
                    history = running.run(stop)
                if self.ranks.any(stop.arrived):
                    raise Interrupted(f"Stopped after phase {phase}. The same command goes on.")
        model.eval()
        self.histories[phase] = history
        self.steps_before += history.steps
        random_state.seed_everything(self.settings.seed, phase, "after")
        return history

    def gradients(self, model: nn.Module, *, batches: int) -> dict[str, Tensor]:
        """Mean gradient of each trainable parameter over so many optimizer batches, the same on every rank."""
        with deterministic(self.ranks.device):
            return mean_gradients(model, self.feed, batches=batches)

    def report(self, numbers: dict[str, float]) -> None:
        """Shows numbers of the whole run, its scores say, in the tracker."""
        self.tracker.numbers(numbers, self.steps_before)

    def close(self) -> None:
        """Ends the tracker's run."""
        self.tracker.close()

    def _plan(self, phase: str, epochs: float | None, steps: int | None, hooks: Sequence[Any]) -> Plan:
        total = steps
        if total is None:
            total = math.ceil((epochs or self.settings.epochs) * self.feed.steps_per_epoch)
        total = min(total, self.settings.max_steps or total)
        return Plan(phase, total, build_schedule(self.settings, total), hooks, self.validate, self.run_dir)

    def _load(self, model: nn.Module, plan: Plan) -> History:
        saved = checkpoint.read(plan.finished)
        targets = trained_tensors(model)
        check_fit(targets, saved.values, str(plan.finished))
        copy_into(targets, saved.values)
        model.to(self.ranks.device)
        return saved.history

    @contextlib.contextmanager
    def _running(self, model: nn.Module, plan: Plan) -> Iterator[Phase]:
        first = self.ranks.first
        random_state.seed_everything(self.settings.seed, plan.name, self.ranks.rank)
        reset_peak_bytes()
        engine = attach(self.accelerator, model, self.settings)
        try:
            with (
                deterministic(self.ranks.device),
                activation_checkpointing(model, enabled=self.settings.gradient_checkpointing),
                PhaseProgress(self.console if first else None, plan.name, plan.total_steps) as progress,
            ):
                journal = Journal(self.run_dir / "log.jsonl")
                report = Report(journal, self.tracker, progress, first=first, steps_before=self.steps_before)
                yield Phase(plan, engine, model, self.feed, report)
        except Exception as error:
            # Closing gathers over ranks, which a rank that fails by itself would wait for in vain.
            if self.ranks.count == 1 or isinstance(error, Interrupted | NonFinite):
                engine.close()
            raise
        engine.close()
