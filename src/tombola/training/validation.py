"""The loss on held-out rows."""

from collections.abc import Sequence

import torch
from torch import nn

from tombola.training.batches import Row, loss_terms, micro_batches, row_length
from tombola.training.collate import collate
from tombola.training.loss import summed_loss, takes_logits_to_keep
from tombola.training.settings import Settings


@torch.no_grad()
def validation_loss(model: nn.Module, rows: Sequence[Row], settings: Settings, pad_token_id: int) -> float:
    """Mean loss over all labelled tokens (or rows) of `rows`, in micro-batches of `eval_token_budget` tokens."""
    lengths = [row_length(row) for row in rows]
    device = next(model.parameters()).device
    keeps_logits = takes_logits_to_keep(model)
    total = 0.0
    for (batch,) in micro_batches(range(len(rows)), lengths, settings.eval_token_budget, ranks=1):
        inputs = collate([rows[row] for row in batch], pad_token_id=pad_token_id, padding_side="right", device=device)
        total += float(summed_loss(model, inputs, keeps_logits=keeps_logits))
    return total / max(1, sum(loss_terms(row) for row in rows))
