"""What a model that reads nothing would answer: the row "majority" of a table.

python train.py method=majority model=minilm task=glue/rte
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from tombola.methods.attach import AdapterRefused
from tombola.methods.base import Base, head_parameters

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


@dataclass(frozen=True)
class Majority(Base):
    """The head with all its weights at zero but the last bias: the share of each class, or the mean of the labels.

    It goes through the same evaluation as any method, so that its score is of the same rows by the same metric.
    """

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """`host.net` with the constant head. Raises AdapterRefused for a decoder, which has no head."""
        last = _last_linear(host)
        labels = trainer.labels
        host.net.requires_grad_(False)
        with torch.no_grad():
            for parameter in head_parameters(host).values():
                parameter.requires_grad_(True).zero_()  # to be saved and counted as a trained head is
            last.bias.copy_(_answer(labels, classes=last.out_features))
        return host.net


def _answer(labels: list[int] | list[float], *, classes: int) -> torch.Tensor:
    """(classes,): of a single output the mean label, else each class's share of the rows."""
    if classes == 1:
        return torch.tensor([sum(labels) / len(labels)])
    counts = Counter(labels)
    return torch.tensor([counts[number] / len(labels) for number in range(classes)])


def _last_linear(host: Host) -> nn.Linear:
    layers = [m for name in host.head for m in host.net.get_submodule(name).modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise AdapterRefused(f"method=majority answers by a head, and {host.name} has none: take an encoder")
    return layers[-1]
