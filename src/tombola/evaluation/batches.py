"""Evaluation batches: sorted by length, cut to a budget of padded tokens, the same for every start of a run."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """What one example takes: `rows` rows (beams or options) of at most `length` tokens.

    `alike` is what a batch's examples should have in common where that is not their length.
    """

    length: int
    rows: int = 1
    alike: int | None = None


def token_batches(sizes: Sequence[Size], token_budget: int) -> list[tuple[int, ...]]:
    """Example numbers by batch, longest first, so that a batch that is too big for memory fails at the start.

    A batch pads to its longest; rows x longest stays within `token_budget`, but an example alone may exceed it. The
    batches depend on the sizes and the budget alone: what was answered before a kill does not change them, and with
    them the last bits of the results.
    """
    batches: list[tuple[int, ...]] = []
    current: list[int] = []
    width = rows = 0
    for index in sorted(range(len(sizes)), key=lambda i: (-_alike(sizes[i]), -sizes[i].length, i)):
        size = sizes[index]
        if current and (rows + size.rows) * max(width, size.length) > token_budget:
            batches.append(tuple(current))
            current, rows, width = [], 0, 0
        current.append(index)
        rows, width = rows + size.rows, max(width, size.length)
    return [*batches, tuple(current)] if current else batches


def _alike(size: Size) -> int:
    return size.length if size.alike is None else size.alike
