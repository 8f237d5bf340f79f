"""The modules that hold a partitioned LoRA's factors (see `WideLeaf`)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.wide import WideLeaf, at_least_float32


class GroupFactor(WideLeaf):
    """A or B of one group of rows, float32 at least."""

    def __init__(self, rows: int, columns: int, *, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns, dtype=torch.float32, device=device))
        self.draw()

    def draw(self) -> None:
        """U(-1/sqrt(columns), 1/sqrt(columns)), as torch draws a linear layer's weight."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self) -> Float[Tensor, "rows columns"]:
        """The factor, as a copy where an engine takes it away again once this returns."""
        return at_least_float32(self.lent())

    def extra_repr(self) -> str:
        """Shape of the factor."""
        return ", ".join(map(str, self.weight.shape))


def group_factors(rows: int, r: int, in_features: int, device: torch.device) -> tuple[GroupFactor, GroupFactor]:
    """A (r, in) and B (rows, r) as PEFT's LoRA starts them from the same random state: A uniform, B zero."""
    a = GroupFactor(r, in_features, device=device)
    b = GroupFactor(rows, r, device=device)
    a.draw()  # PEFT makes two linear layers, which are drawn, and then draws A again
    nn.init.zeros_(b.weight)
    return a, b
