"""The two modules that hold what is kept of a masked LoRA adapter's factors (see `WideLeaf`)."""

from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.ops import Kept, masked_additive, masked_fused
from tombola.adapters.wide import WideLeaf


class MaskedA(WideLeaf):
    """What is kept of A: (r, kept) columns, or (kept,) entries; float32 at least."""

    def __init__(self, values: Float[Tensor, "*stored"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(values)

    def forward(self) -> Float[Tensor, "*stored"]:
        """The numbers, as a copy where an engine takes them away again once this returns."""
        return self.lent()

    def extra_repr(self) -> str:
        """Shape of the numbers."""
        return ", ".join(map(str, self.weight.shape))


class MaskedB(WideLeaf):
    """What is kept of B, (kept, r) rows or (kept,) entries; float32 at least; and the product with the input."""

    def __init__(self, values: Float[Tensor, "*stored"], *, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(values)
        self.scale = scale

    def forward(
        self,
        x: Float[Tensor, "*batch in"],
        a: Float[Tensor, "*stored"],
        kept_a: Kept,
        kept_b: Kept,
        base: tuple[Float[Tensor, "out in"], Float[Tensor, "out"] | None] | None = None,
    ) -> Float[Tensor, "*batch out"]:
        """The delta's product with x; with a base layer's weight and bias, its output included."""
        if base is None:
            return masked_additive(x, a, self.weight, kept_a, kept_b, self.scale)
        return masked_fused(x, *base, a, self.weight, kept_a, kept_b, self.scale)

    def extra_repr(self) -> str:
        """Shape of the numbers and the delta's fixed factor."""
        return f"{', '.join(map(str, self.weight.shape))}, scale={self.scale}"
