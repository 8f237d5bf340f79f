"""The training rows, handed out as optimizer batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from tombola.training.batches import (
    MicroBatch,
    Row,
    epoch_order,
    loss_terms,
    micro_batches,
    row_length,
    steps_per_epoch,
)
from tombola.training.collate import Batch, collate
from tombola.training.random_state import derived_seed
from tombola.training.ranks import Ranks
from tombola.training.settings import Settings


@dataclass(frozen=True)
class OptimizerBatch:
    """One rank's micro-batches of an optimizer batch, and the whole batch's counts."""

    turns: list[MicroBatch]
    shortest: int  # the row that an idle turn runs, at weight 0
    terms: int  # of the loss, over all ranks
    tokens: int  # without padding, over all ranks
    seed: int  # of what varies in its rows each time they are drawn: the crops of images


class Feed:
    """Draws optimizer batches from rows that every rank holds whole, so that counts need no communication."""

    def __init__(self, rows: Sequence[Row], settings: Settings, *, pad_token_id: int, padding_side: str, ranks: Ranks):
        if not rows:
            raise ValueError("There are no training rows. Check task.data_dir, training.max_rows and validation_rows.")
        self.rows = rows
        self.settings = settings
        self.pad_token_id = pad_token_id
        self.padding_side = padding_side
        self.ranks = ranks
        self.lengths = [row_length(row) for row in rows]
        self.terms = [loss_terms(row) for row in rows]
        self.steps_per_epoch = steps_per_epoch(len(rows), settings.batch_size)
        self._order: tuple[tuple[object, ...], list[int]] = ((), [])

    def part(self, numbers: Sequence[int]) -> "Feed":
        """A feed of only these rows."""
        return Feed(
            [self.rows[number] for number in numbers],
            self.settings,
            pad_token_id=self.pad_token_id,
            padding_side=self.padding_side,
            ranks=self.ranks,
        )

    def draw(self, phase: str, step: int, redraws: Sequence[tuple[int, int]] = ()) -> OptimizerBatch:
        """This rank's share of the phase's optimizer batch number `step`."""
        drawn = self._rows(phase, step, redraws)
        rounds = micro_batches(drawn, self.lengths, self.settings.token_budget, self.ranks.count)
        return self._counted(drawn, [turn[self.ranks.rank] for turn in rounds], phase, step)

    def draw_whole(
        self, phase: str, step: int, *, rows: int | None = None, redraws: Sequence[tuple[int, int]] = ()
    ) -> OptimizerBatch:
        """The same batch, or its first `rows`, as one micro-batch a rank whatever the token budget."""
        drawn = self._rows(phase, step, redraws)[:rows]
        longest_first = sorted(drawn, key=lambda row: -self.lengths[row])
        return self._counted(drawn, [tuple(longest_first[self.ranks.rank :: self.ranks.count])], phase, step)

    def collate(self, rows: MicroBatch, seed: int | None = None) -> Batch:
        """The rows as tensors on this rank's device: as an evaluation sees them, or as `seed` draws them."""
        return collate(
            [self.rows[row] for row in rows],
            pad_token_id=self.pad_token_id,
            padding_side=self.padding_side,
            device=self.ranks.device,
            seed=seed,
        )

    def _rows(self, phase: str, step: int, redraws: Sequence[tuple[int, int]]) -> list[int]:
        epoch, number = divmod(step, self.steps_per_epoch)
        size = self.settings.batch_size
        return self._epoch(phase, epoch, tuple(redraws))[number * size : (number + 1) * size]

    def _counted(self, drawn: Sequence[int], turns: list[MicroBatch], phase: str, step: int) -> OptimizerBatch:
        return OptimizerBatch(
            turns=turns,
            shortest=min(drawn, key=lambda row: self.lengths[row]),
            terms=max(1, sum(self.terms[row] for row in drawn)),
            tokens=sum(self.lengths[row] for row in drawn),
            seed=derived_seed("views", self.settings.seed, phase, step),
        )

    def _epoch(self, phase: str, epoch: int, redraws: tuple[tuple[int, int], ...]) -> list[int]:
        key = (phase, epoch, redraws)
        if self._order[0] != key:
            order = epoch_order(len(self.rows), seed=self.settings.seed, phase=phase, epoch=epoch, redraws=redraws)
            self._order = (key, order)
        return self._order[1]
