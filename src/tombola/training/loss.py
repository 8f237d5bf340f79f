"""The loss of a micro-batch, summed, so that an optimizer batch has one gradient however it is cut.

The trainer divides by the whole optimizer batch's count of loss terms. A mean over each micro-batch, weighted by its
share of rows, would not be the mean over tokens.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tombola.training.batches import IGNORED
from tombola.training.collate import Batch
from tombola.training.weights import base_model


def summed_loss(call: Callable[..., Any], batch: Batch, *, keeps_logits: bool) -> Float[Tensor, ""]:
    """Sum of the loss terms of a micro-batch, at least float32: cross-entropy, or squared error for a single output.

    `keeps_logits` says that the model takes `logits_to_keep` (see `takes_logits_to_keep`).
    """
    if batch.predicts_from is not None:
        return _next_token_loss(call, batch, keeps_logits)
    logits = _at_least_float32(call(**batch.inputs).logits)
    if logits.shape[-1] == 1:
        return F.mse_loss(logits[:, 0], batch.labels.to(logits.dtype), reduction="sum")
    return F.cross_entropy(logits, batch.labels, reduction="sum")


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Whether the model can leave out the logits of positions that have no label."""
    return "logits_to_keep" in inspect.signature(base_model(model).forward).parameters


def labelled_logits(
    call: Callable[..., Any], batch: Batch, keeps_logits: bool
) -> tuple[Float[Tensor, "rows kept vocabulary"], Int[Tensor, "rows kept"]]:
    """A language model's logits at `batch.predicts_from`, and the tokens, or IGNORED, that follow there.

    Logits are the largest tensor of a small model's step: no position that is unlabelled in every row gets them.
    """
    positions = batch.predicts_from
    assert positions is not None
    if keeps_logits:
        logits = call(**batch.inputs, use_cache=False, logits_to_keep=positions).logits
    else:
        logits = call(**batch.inputs, use_cache=False).logits[:, positions]
    return logits, batch.labels[:, positions + 1]


def _next_token_loss(call: Callable[..., Any], batch: Batch, keeps_logits: bool) -> Float[Tensor, ""]:
    logits, targets = labelled_logits(call, batch, keeps_logits)
    # Picking the labelled rows out of `logits` first took twice as long: its backward scatters a tokens x vocabulary.
    flat = _at_least_float32(logits.flatten(0, 1))
    return F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction="sum")


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
