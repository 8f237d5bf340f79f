"""The modules that hold the two factors of a RoSA adapter's low-rank part."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.ops.precision import autocast_dtype
from tombola.adapters.wide import WideLeaf


class RosaFactor(WideLeaf):
    """A matrix and its product with the input: A (r, in) or B (out, r), float32 at least."""

    def __init__(self, rows: int, columns: int, *, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns, dtype=torch.float32, device=device))
        self.draw()

    def draw(self) -> None:
        """U(-1/sqrt(columns), 1/sqrt(columns)), as torch draws a linear layer's weight."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        """The product, in the matrix's dtype, or autocast's."""
        x = x if autocast_dtype(x) is not None else x.to(self.weight.dtype)
        return nn.functional.linear(x, self.weight)

    def extra_repr(self) -> str:
        """Shape of the matrix."""
        return ", ".join(map(str, self.weight.shape))


def lora_factors(r: int, out_features: int, in_features: int, device: torch.device) -> tuple[RosaFactor, RosaFactor]:
    """A and B as PEFT's LoRA starts them from the same random state: A uniform, B zero."""
    a = RosaFactor(r, in_features, device=device)
    b = RosaFactor(out_features, r, device=device)
    a.draw()  # PEFT makes two linear layers, which are drawn, and then draws A again
    nn.init.zeros_(b.weight)
    return a, b
