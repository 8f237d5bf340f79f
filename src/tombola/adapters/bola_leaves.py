"""The two modules that hold an adapter's numbers: leaves that compute in their own forward (see `WideLeaf`)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.ops import bola_additive, bola_borrowed
from tombola.adapters.wide import WideLeaf, at_least_float32


class BolaScores(WideLeaf):
    """Scores of k candidates over the n x m cells, float32 at least whatever the model is cast to.

    The margins between the best scores are about 1e-4 of their size, below what bfloat16 resolves.
    """

    def __init__(self, k: int, n: int, m: int, *, init_a: float, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(k, n, m, dtype=torch.float32, device=device))
        nn.init.kaiming_uniform_(self.weight, a=init_a)

    def forward(self) -> Float[Tensor, "k n m"]:
        """The scores, as a copy where an engine takes them away again once this returns."""
        return self.lent()

    def extra_repr(self) -> str:
        """Shape of the scores."""
        return ", ".join(map(str, self.weight.shape))


class BolaValues(nn.Module):
    """Content of the k blocks, zero at first, and the product with the layer's input."""

    def __init__(self, k: int, rows: int, columns: int, *, alpha: float, magnitude: str, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(k, rows, columns, dtype=torch.float32, device=device))
        self.alpha = alpha
        self.magnitude = magnitude

    def forward(
        self,
        x: Float[Tensor, "*batch in"],
        scores: Float[Tensor, "k n m"],
        borrow: Float[Tensor, "out in"] | None = None,
        bias: Float[Tensor, "out"] | None = None,
    ) -> Float[Tensor, "*batch out"]:
        """The delta's product with x; with a weight to borrow, the base layer's output included."""
        scores = at_least_float32(scores)
        if borrow is None:
            return bola_additive(x, scores, self.weight, self.alpha, self.magnitude)
        return bola_borrowed(x, borrow, bias, scores, self.weight, self.alpha, self.magnitude)

    def extra_repr(self) -> str:
        """Shape of the blocks and how they are scaled."""
        return f"{', '.join(map(str, self.weight.shape))}, alpha={self.alpha}, magnitude={self.magnitude}"
