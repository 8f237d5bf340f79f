"""Which rows of a task a run uses: caps, and validation rows cut from the training set."""

from collections.abc import Sequence
from typing import TypeVar

from tombola.tasks import DataError, Example, Task
from tombola.training import Settings

T = TypeVar("T")


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """At most `most` items, evenly spaced: files are often grouped by source or class, so a prefix would not do."""
    if most is None or most >= len(items):
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]


def divided(task: Task, settings: Settings) -> tuple[list[Example], list[Example]]:
    """Training and validation examples, capped; `validation_rows` are cut from the training set if no split is there.

    Raises DataError when the cut would leave nothing to train on, or there is nothing to select by.
    """
    train, validation = list(task.train()), list(task.validation())
    wanted = settings.validation_rows
    if not validation and wanted:
        if wanted >= len(train):
            raise DataError(f"training.validation_rows={wanted}: {task.name} has only {len(train)} training rows")
        taken = set(spread(range(len(train)), wanted))
        validation = [train[index] for index in sorted(taken)]
        train = [example for index, example in enumerate(train) if index not in taken]
    if settings.select == "best" and not validation:
        raise DataError(
            f"training.select=best: {task.name} has no validation set here; cut one from its training rows by "
            f"training.validation_rows={max(1, len(train) // 10)}"
        )
    return spread(train, settings.max_rows), spread(validation, settings.max_eval_rows)
