"""A phase's state while it runs, and how it goes to disk and comes back."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tombola.training import checkpoint, random_state
from tombola.training.checkpoint import KEPT, Checkpoint
from tombola.training.engine import Engine
from tombola.training.feed import Feed
from tombola.training.measures import peak_bytes
from tombola.training.plan import Plan, Window
from tombola.training.protocol import History
from tombola.training.weights import check_fit, copy_into, trained_buffers


@dataclass
class PhaseState:
    """What changes from step to step, beside the tensors in the engine. The place in the data is `history.steps`."""

    history: History
    redraws: list[tuple[int, int]] = field(default_factory=list)  # see batches.epoch_order
    best: dict[str, Tensor] = field(default_factory=dict)  # values of the best validation, on the CPU


class Keeper:
    """Saves and restores a phase. Every method is called on every rank; rank 0 alone writes."""

    def __init__(self, plan: Plan, engine: Engine, model: nn.Module, feed: Feed):
        self.plan = plan
        self.engine = engine
        self.model = model
        self.feed = feed
        self.ranks = feed.ranks
        self.clock = time.perf_counter()

    def newest(self) -> Path | None:
        """The newest complete checkpoint, on every rank the same."""
        return self.ranks.from_first(lambda: checkpoint.newest(self.plan.checkpoints, self.plan.name))

    def start(self) -> None:
        """Loads the optimizer state that the phase is to start from; a phase without a checkpoint comes here again."""
        for path, value in self.plan.optimizer.items():
            name = path.partition("/")[2]
            shape = self.engine.shapes.get(name)
            # Beside scalars, 8-bit moments have tensors of other shapes: one number a block.
            if shape is None or (self.feed.settings.optimizer != "adamw_8bit" and value.shape not in ((), shape)):
                raise ValueError(
                    f"The optimizer state {path} to start phase {self.plan.name} from has shape {tuple(value.shape)}; "
                    f"the trained parameter of that name has {None if shape is None else tuple(shape)}."
                )
        if self.plan.optimizer:
            # Copies, for torch takes tensors that need no conversion as they are, and would train the caller's.
            self.engine.load_optimizer_state({path: value.clone() for path, value in self.plan.optimizer.items()})

    def save(self, state: PhaseState) -> None:
        """Writes a checkpoint of this moment and removes the oldest."""
        made = self._checkpoint(state, self.tensors(), self.engine.optimizer_state(), state.best)
        folder = self.plan.checkpoints / f"{self.plan.name}-{state.history.steps}"

        def write() -> None:
            checkpoint.write(made, folder)
            checkpoint.remove_all_but(KEPT, self.plan.checkpoints, self.plan.name)

        self.ranks.from_first(write)

    def finish(self, state: PhaseState) -> None:
        """Writes the phase's result; its checkpoints have had their day."""
        kept = self.engine.optimizer_state() if self.plan.keeps_optimizer else {}
        made = self._checkpoint(state, self.tensors(), kept, {})

        def write() -> None:
            checkpoint.write(made, self.plan.finished)
            checkpoint.remove_all_but(0, self.plan.checkpoints, self.plan.name)

        self.ranks.from_first(write)

    def resume(self, folder: Path) -> PhaseState:
        """The state of a checkpoint; engine, buffers and random generators are set to it."""
        saved = checkpoint.read(folder)
        if saved.fingerprint != self.fingerprint:
            raise ValueError(
                f"{folder} was written by another run: {saved.fingerprint}. This one is {self.fingerprint}. "
                "Remove the run folder, or choose another runs.dir."
            )
        check_fit(self.tensors(), saved.values, str(folder))
        self.set_tensors(saved.values)
        self.engine.load_optimizer_state(saved.optimizer)
        if len(saved.random) == self.ranks.count:
            random_state.restore(saved.random[self.ranks.rank])
        else:  # resumed on another number of ranks: seeded, though not the same to the bit
            seed = self.feed.settings.seed
            random_state.seed_everything(seed, self.plan.name, saved.history.steps, self.ranks.rank)
        self.clock = time.perf_counter()
        return PhaseState(saved.history, saved.redraws, saved.best)

    def tensors(self) -> dict[str, Tensor]:
        """What the phase's result consists of: trainable values and adapter buffers, whole."""
        return {**self.engine.values(), **trained_buffers(self.model)}

    def set_tensors(self, values: dict[str, Tensor]) -> None:
        """Sets trainable values and adapter buffers."""
        self.engine.load_values({name: values[name] for name in self.engine.shapes})
        copy_into(trained_buffers(self.model), values)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be this phase's."""
        plan = self.plan
        made: dict[str, Any] = {
            "phase": plan.name,
            "rows": len(self.feed.rows),
            "batch_size": self.feed.settings.batch_size,
            "total_steps": plan.total_steps,
            "seed": self.feed.settings.seed,
        }
        if plan.window != Window(plan.name, 0, plan.total_steps):
            made["window"] = asdict(plan.window)
        if plan.keeps_optimizer:
            made["keeps_optimizer"] = True
        return made

    def _checkpoint(
        self, state: PhaseState, values: dict[str, Tensor], optimizer: dict[str, Tensor], best: dict[str, Tensor]
    ) -> Checkpoint:
        now = time.perf_counter()
        state.history.seconds += now - self.clock
        self.clock = now
        state.history.peak_bytes = max(state.history.peak_bytes, peak_bytes())
        generators = self.ranks.gather(random_state.capture())
        return Checkpoint(self.fingerprint, state.history, state.redraws, generators, values, optimizer, best)
