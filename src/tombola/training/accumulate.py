"""Forward and backward over one optimizer batch, the same gradient however the batch is cut and shared."""

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.training.engine import Runner
from tombola.training.feed import Feed, OptimizerBatch
from tombola.training.loss import summed_loss


def accumulate(runner: Runner, feed: Feed, drawn: OptimizerBatch, *, keeps_logits: bool) -> Float[Tensor, ""]:
    """The optimizer batch's mean loss over its terms, over all ranks; its gradient is left in the runner."""
    device = feed.ranks.device
    half = feed.settings.mixed_precision == "bf16"
    total = torch.zeros((), device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)
    for number, rows in enumerate(drawn.turns):
        batch = feed.collate(rows or (drawn.shortest,), drawn.seed)
        with runner.micro_step(last=number == len(drawn.turns) - 1):
            # Not accelerate's own mixed precision: it copies every output to float32, the unused logits too.
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = summed_loss(runner, batch, keeps_logits=keeps_logits)
            loss = loss * (len(rows) > 0) / drawn.terms
            runner.backward(loss * feed.ranks.count)  # DDP and ZeRO average over ranks, and a sum is wanted
        total += loss.detach()
    return feed.ranks.sum(total)
