"""Which rows make an optimizer batch, and how it is cut into micro-batches of a token budget.

The optimizer batch is drawn first, then sorted by length, so that the cut changes padding and memory but no gradient.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from tombola.training.random_state import derived_seed

IGNORED = -100
# What a micro-batch costs beside its tokens (reading the weights again, launching kernels), in tokens. With it, batches
# of 16 rows of math_human_10k have 1.05 times the tokens of their rows, of commonsense_51k 1.06 times; padded as one
# they have 1.65 and 1.30 times (results/bench/eval.md).
TOKENS_PER_CALL = 64
PATCH_PIXELS = 16 * 16  # an image counts as many tokens as it has 16 x 16 patches

Row = dict[str, Any]
MicroBatch = tuple[int, ...]  # row numbers; () is a rank's idle turn


def row_length(row: Row) -> int:
    """Tokens of a row."""
    if "input_ids" in row:
        return len(row["input_ids"])
    height, width = row["size"] if "size" in row else row["pixel_values"].shape[-2:]
    return max(1, height * width // PATCH_PIXELS)


def loss_terms(row: Row) -> int:
    """How many terms a row adds to the summed loss: its predicted tokens, or 1 for a row with one label."""
    if "labels" not in row:
        return 1
    predicted = list(row["labels"][1:])
    return len(predicted) - predicted.count(IGNORED)


def epoch_order(rows: int, *, seed: int, phase: str, epoch: int, redraws: Sequence[tuple[int, int]] = ()) -> list[int]:
    """The epoch's row numbers in training order, a function of its arguments alone.

    Each redraw `(epoch, place)` shuffles all that follows that place of that epoch once more, later epochs too: a
    rewound run does not meet the same batches again, and still sees every row once an epoch.
    """
    order = _shuffled(list(range(rows)), seed, phase, epoch)
    for number, (redrawn_epoch, place) in enumerate(redraws):
        if redrawn_epoch <= epoch:
            start = place if redrawn_epoch == epoch else 0
            order[start:] = _shuffled(order[start:], seed, phase, epoch, number)
    return order


def _shuffled(items: list[int], *key: Any) -> list[int]:
    generator = torch.Generator().manual_seed(derived_seed("order", *key))
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimizer batches of an epoch; the last may be smaller."""
    return math.ceil(rows / batch_size)


def micro_batches(
    batch: Sequence[int], lengths: Sequence[int], token_budget: int, ranks: int
) -> list[list[MicroBatch]]:
    """The optimizer batch as rounds of one micro-batch a rank, at most `token_budget` padded tokens each.

    A single longer row stands alone. Every rank gets the same number of micro-batches (ZeRO-3 gathers weights in each
    forward, so a rank that stops early hangs the others); where rows do not suffice, a rank idles with ().
    """
    pieces = _cheapest_cut(sorted(batch, key=lambda row: -lengths[row]), lengths, token_budget)
    while len(pieces) % ranks:
        widest = max(pieces, key=lambda piece: (len(piece) > 1, len(piece) * lengths[piece[0]]))
        if len(widest) == 1:
            pieces += [()] * (-len(pieces) % ranks)
            break
        place, middle = pieces.index(widest), len(widest) // 2
        pieces[place : place + 1] = [widest[:middle], widest[middle:]]
    pieces.sort(key=lambda piece: -(len(piece) * lengths[piece[0]] if piece else 0))
    return [pieces[start : start + ranks] for start in range(0, len(pieces), ranks)]


def _cheapest_cut(longest_first: Sequence[int], lengths: Sequence[int], token_budget: int) -> list[MicroBatch]:
    """Runs of the sorted rows with the least padded tokens plus `TOKENS_PER_CALL` a run, none over the budget."""
    count = len(longest_first)
    cost = [0.0] * (count + 1)  # of the rows from here on
    following = [count] * (count + 1)
    for start in range(count - 1, -1, -1):
        width = lengths[longest_first[start]]
        fitting = max(1, token_budget // max(1, width))
        ends = range(start + 1, min(count, start + fitting) + 1)
        following[start] = min(ends, key=lambda end: ((end - start) * width + cost[end], -end))
        cost[start] = TOKENS_PER_CALL + (following[start] - start) * width + cost[following[start]]
    pieces, start = [], 0
    while start < count:
        pieces.append(tuple(longest_first[start : following[start]]))
        start = following[start]
    return pieces
