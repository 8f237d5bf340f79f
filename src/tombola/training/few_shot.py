"""A few of the training rows, and how many of them a model gets right: what methods measure a frozen model by."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tombola.training.batches import Row, micro_batches
from tombola.training.collate import Batch
from tombola.training.feed import Feed
from tombola.training.loss import labelled_logits, takes_logits_to_keep
from tombola.training.random_state import derived_seed


def few_shot_rows(rows: Sequence[Row], *, per_class: int, share: float, seed: int) -> list[int]:
    """Row numbers, ascending: `per_class` of each class, or of rows without one class a `share` of all, at least 1."""
    generator = torch.Generator().manual_seed(derived_seed("few shots", seed))
    order = torch.randperm(len(rows), generator=generator).tolist()
    if "label" not in rows[0]:
        return sorted(order[: max(1, round(share * len(rows)))])
    by_class: dict[float, list[int]] = {}
    for number in order:
        by_class.setdefault(float(rows[number]["label"]), []).append(number)
    return sorted(number for numbers in by_class.values() for number in numbers[:per_class])


@torch.no_grad()
def accuracy(model: nn.Module, feed: Feed) -> float:
    """Share of the rows whose class, or of the labelled tokens that, the model predicts; the same on every rank.

    Without dropout. The model is whole on each rank here, whatever the launch. Raises ValueError for a model with a
    single output, which predicts no class.
    """
    ranks, settings = feed.ranks, feed.settings
    model.to(ranks.device)
    training, keeps_logits = model.training, takes_logits_to_keep(model)
    right = torch.zeros((), dtype=torch.int64, device=ranks.device)
    model.eval()
    try:
        for turns in micro_batches(range(len(feed.rows)), feed.lengths, settings.eval_token_budget, ranks.count):
            if mine := turns[ranks.rank]:
                half = settings.mixed_precision == "bf16"
                with torch.autocast(ranks.device.type, torch.bfloat16, enabled=half):
                    right += _right(model, feed.collate(mine), keeps_logits)
    finally:
        model.train(training)
    return int(ranks.sum(right)) / max(1, sum(feed.terms))


def _right(model: nn.Module, batch: Batch, keeps_logits: bool) -> Int[Tensor, ""]:
    """How many of the batch are right; a position without a label never is."""
    if batch.predicts_from is not None:
        logits, targets = labelled_logits(model, batch, keeps_logits)
        return (logits.argmax(-1) == targets).sum()
    logits = model(**batch.inputs).logits
    if logits.shape[-1] == 1:
        raise ValueError("accuracy() needs classes or tokens to predict, and this model has a single output.")
    return (logits.argmax(-1) == batch.labels).sum()
