"""The two modules that hold a SparseDelta adapter's numbers: leaves that compute in their own forward."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.ops import Support, sparse_additive, sparse_borrowed
from tombola.adapters.wide import WideLeaf


class SparseGate(WideLeaf):
    """One trained factor of a layer's delta, float32 at least."""

    def __init__(self, init: float, *, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), init, dtype=torch.float32, device=device))

    def forward(self) -> Float[Tensor, "1"]:
        """The factor, as a copy where an engine takes it away again once this returns."""
        return self.lent()


class SparseValues(WideLeaf):
    """The delta's values at its support, and the product with the layer's input."""

    def __init__(self, values: Float[Tensor, "units *tile"], *, scale: float) -> None:
        super().__init__()
        self.narrow = values.dtype == torch.bfloat16
        self.weight = nn.Parameter(values)
        self.scale = scale

    def forward(
        self,
        x: Float[Tensor, "*batch in"],
        support: Support,
        gate: Float[Tensor, "1"] | None = None,
        borrow: Float[Tensor, "out in"] | None = None,
        bias: Float[Tensor, "out"] | None = None,
    ) -> Float[Tensor, "*batch out"]:
        """The delta's product with x; with a weight to borrow, the base layer's output included."""
        if borrow is None:
            return sparse_additive(x, self.weight, gate, support, self.scale)
        return sparse_borrowed(x, borrow, bias, self.weight, gate, support, self.scale)

    def extra_repr(self) -> str:
        """Shape of the values and their fixed factor."""
        return f"{', '.join(map(str, self.weight.shape))}, scale={self.scale}"
