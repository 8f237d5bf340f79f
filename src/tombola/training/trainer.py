"""The `Trainer` that methods see: phases that are idempotent, resumable and the same on one process or many."""

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tombola.training import archive, checkpoint, random_state, rewrite
from tombola.training.batches import Row
from tombola.training.conditions import activation_checkpointing, deterministic
from tombola.training.dense import dense_gradients
from tombola.training.eight_bit import check_eight_bit
from tombola.training.feed import Feed
from tombola.training.few_shot import accuracy, few_shot_rows
from tombola.training.gradients import mean_gradients
from tombola.training.interrupt import stop_signals
from tombola.training.journal import Journal
from tombola.training.launch import attach, start_accelerator
from tombola.training.measures import reset_peak_bytes
from tombola.training.optimizer import build_schedule
from tombola.training.phase import Phase
from tombola.training.plan import Plan, Window
from tombola.training.progress import PhaseProgress
from tombola.training.protocol import History, Interrupted, NonFinite
from tombola.training.ranks import Ranks
from tombola.training.report import Report
from tombola.training.rewrite import Rewrite
from tombola.training.settings import Settings
from tombola.training.trackers import Log, Tracker
from tombola.training.weights import check_fit, copy_into, trained_tensors

PHASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
MADE = "made.safetensors"  # of `once`


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
        if settings.optimizer == "adamw_8bit":
            check_eight_bit((launch or {}).get("kind", "single"))
        self.settings = settings
        self.run_dir = Path(run_dir)
        self.validate = validate
        self.console = console
        self.accelerator = start_accelerator(launch or {}, max_grad_norm=settings.max_grad_norm)
        self.ranks = Ranks(self.accelerator)
        self.feed = Feed(rows, settings, pad_token_id=pad_token_id, padding_side=padding_side, ranks=self.ranks)
        self.journal = Journal(self.run_dir / "log.jsonl")
        self.tracker = Tracker(self.accelerator, log or Log(), self.run_dir)
        self.histories: dict[str, History] = {}  # of the phases so far
        self.steps_before = 0
        self.redraws: dict[str, tuple[tuple[int, int], ...]] = {}  # of each whole's data order, so far
        self.running: Phase | None = None  # the phase that is being trained, for its hooks

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
        """The phase's history; `model` then holds its final values, whole, in eval mode, on every rank.

        A finished phase is loaded, one that was cut off goes on from its newest complete checkpoint. Random generators
        are left in a state that depends on the seed and the phase's name alone, the same on every rank.
        """
        if not PHASE_NAME.fullmatch(phase):
            raise ValueError(f"A phase's name is letters, digits, dots, dashes and underscores. Got {phase!r}.")
        plan = self._plan(phase, epochs, steps, hooks, window, optimizer or {}, keep_optimizer)
        if self.ranks.from_first(lambda: archive.is_complete(plan.finished)):
            history = self._load(model, plan)
        else:
            with stop_signals() as stop:
                with self._running(model, plan) as running:
                    history = running.run(stop)
                self.redraws[plan.window.whole] = tuple(running.state.redraws)
                if self.ranks.any(stop.arrived):
                    raise Interrupted(f"Stopped after phase {phase}. The same command goes on.")
        model.eval()
        self.histories[phase] = history
        self.steps_before += history.steps
        random_state.seed_everything(self.settings.seed, phase, "after")
        return history

    def optimizer_state(self, phase: str) -> dict[str, Tensor]:
        """The optimizer's tensors at the end of a phase that kept them, whole, on the CPU."""
        folder = self.run_dir / "phases" / phase
        saved = checkpoint.read(folder) if archive.is_complete(folder) else None
        if saved is None or not saved.fingerprint.get("keeps_optimizer"):
            raise ValueError(f"No optimizer state of phase {phase!r}: train it to its end with keep_optimizer=True.")
        return saved.optimizer

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return self.feed.steps_per_epoch

    @property
    def labels(self) -> list[int] | list[float]:
        """The class or number of each training row."""
        if "label" not in self.feed.rows[0]:
            raise ValueError("labels needs rows for a head, with one label each. These are a language model's.")
        return [row["label"] for row in self.feed.rows]

    def total_steps(self, epochs: float | None = None) -> int:
        """Optimizer steps of so many epochs (None: the settings'), under the cap on steps."""
        total = math.ceil((epochs or self.settings.epochs) * self.steps_per_epoch)
        return min(total, self.settings.max_steps or total)

    def rewrite(self, model: nn.Module, rewrites: Mapping[str, Rewrite]) -> None:
        """Rewrites trained parameters, by name, inside a hook of the phase that trains them."""
        if self.running is None:
            raise ValueError("rewrite() is for hooks, while a phase runs. Between phases set parameters directly.")
        rewrite.apply(self.running.engine, rewrites)

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
        """Shows each layer's dense weight gradient on an optimizer batch; see the protocol."""
        redraws = self.redraws.get(phase, ())
        if self.running is None:
            model.to(self.ranks.device)
        elif self.running.plan.window.whole == phase:
            redraws = tuple(self.running.state.redraws)
        with deterministic(self.ranks.device):
            dense_gradients(model, layers, see, self.feed, phase=phase, step=step, rows=rows, redraws=redraws)

    def note(self, phase: str, numbers: Mapping[str, float]) -> None:
        """Writes a line of a method's own numbers to the log and the tracker.

        Inside a hook it belongs to the step; outside, to the end of the phase, if there was one of that name. Called
        again with the same numbers after a resume, it adds nothing.
        """
        step = self.histories[phase].steps if phase in self.histories else 0
        before = self.steps_before
        if self.running is not None and self.running.plan.name == phase:
            step = self.running.state.history.steps + 1
            before += step
        if self.ranks.first and self.journal.append_new({"phase": phase, "step": step, **numbers}):
            self.tracker.numbers({f"{phase}/{key}": value for key, value in numbers.items()}, before)

    def gradients(self, model: nn.Module, *, batches: int) -> dict[str, Tensor]:
        """Mean gradient of each trainable parameter over so many optimizer batches, the same on every rank."""
        with deterministic(self.ranks.device):
            return mean_gradients(model, self.feed, batches=batches)

    @contextlib.contextmanager
    def few_shot(self, *, per_class: int, share: float) -> Iterator[None]:
        """Inside, the training rows are a few of them; see the protocol."""
        every = self.feed
        numbers = few_shot_rows(every.rows, per_class=per_class, share=share, seed=self.settings.seed)
        self.feed = every.part(numbers)
        try:
            yield
        finally:
            self.feed = every

    def accuracy(self, model: nn.Module) -> float:
        """Share of the rows, or of their labelled tokens, that the model gets right; the same on every rank."""
        with deterministic(self.ranks.device):
            return accuracy(model, self.feed)

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What `make` gives the first time, whole in the run's folder or not there; see the protocol."""
        folder = self.run_dir / "phases" / name
        if not self.ranks.from_first(lambda: archive.is_complete(folder)):
            started = time.perf_counter()
            made = make()
            told = {"seconds": str(time.perf_counter() - started)}
            self.ranks.from_first(lambda: archive.write_folder(folder, lambda part: save_file(made, part / MADE, told)))
        with safe_open(folder / MADE, "pt") as file:
            self.histories[name] = History(name, seconds=float(file.metadata()["seconds"]))
        return load_file(folder / MADE)

    def progress(self, name: str, total: int) -> PhaseProgress:
        """Progress of a method's own work, shown by the first rank."""
        return PhaseProgress(self.console if self.ranks.first else None, name, total)

    def report(self, numbers: dict[str, float]) -> None:
        """Shows numbers of the whole run, its scores say, in the tracker."""
        self.tracker.numbers(numbers, self.steps_before)

    def close(self) -> None:
        """Ends the tracker's run."""
        self.tracker.close()

    def _plan(
        self,
        phase: str,
        epochs: float | None,
        steps: int | None,
        hooks: Sequence[Any],
        window: Window | None,
        optimizer: Mapping[str, Tensor],
        keep_optimizer: bool,
    ) -> Plan:
        cap = self.settings.max_steps
        total = self.total_steps(epochs) if steps is None else min(steps, cap or steps)
        whole = window or Window(phase, 0, total)
        if cap is not None and whole.total > cap:
            raise ValueError(f"{whole} is longer than training.max_steps={cap}: take its total from total_steps().")
        if not 0 <= whole.first <= whole.first + total <= whole.total:
            raise ValueError(f"Phase {phase} of {total} steps does not lie within {whole}.")
        return Plan(
            phase, total, whole, build_schedule(self.settings, whole.total), hooks, self.validate, self.run_dir,
            self.redraws.get(whole.whole, ()), optimizer, keep_optimizer,
        )  # fmt: skip

    def _load(self, model: nn.Module, plan: Plan) -> History:
        saved = checkpoint.read(plan.finished)
        targets = trained_tensors(model)
        check_fit(targets, saved.values, str(plan.finished))
        copy_into(targets, saved.values)
        model.to(self.ranks.device)
        self.redraws[plan.window.whole] = tuple(saved.redraws)
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
                report = Report(self.journal, self.tracker, progress, first=first, steps_before=self.steps_before)
                self.running = Phase(plan, engine, model, self.feed, report)
                yield self.running
        except Exception as error:
            # Closing gathers over ranks, which a rank that fails by itself would wait for in vain.
            if self.ranks.count == 1 or isinstance(error, Interrupted | NonFinite):
                engine.close()
            raise
        finally:
            self.running = None
        engine.close()
