"""The module that holds a LoRA-Dash adapter's directions and what it trains along them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.ops.precision import autocast_dtype
from tombola.adapters.wide import WideLeaf


class Directions(WideLeaf):
    """U diag(c) V^T: `weight` is c (n,), trained from 0; `u` (out, n) and `v` (n, in) are buffers, float32 at least.

    Buffers, because ZeRO-3 leaves frozen parameters out of what it saves.
    """

    u: Float[Tensor, "out n"]
    v: Float[Tensor, "n in"]

    def __init__(self, count: int, out_features: int, in_features: int, *, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, device=device))
        self.register_buffer("u", torch.zeros(out_features, count, device=device))
        self.register_buffer("v", torch.zeros(count, in_features, device=device))

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The product, in the buffers' dtype, or autocast's."""
        x = x if autocast_dtype(x) is not None else x.to(self.v.dtype)
        return nn.functional.linear(nn.functional.linear(x, self.v) * self.weight, self.u)

    def extra_repr(self) -> str:
        """How many directions, and between which widths."""
        return f"{len(self.v)} directions, {self.u.shape[0]} x {self.v.shape[1]}"
