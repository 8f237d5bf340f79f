"""The two modules that hold an adapter's numbers: leaves with one `weight` each, which any sharding engine can hold.

FSDP, ZeRO-3 and CPU offloading bring a parameter whole to its own module's forward, and again to that module's
backward, and nowhere else. So the layer calls these modules and never reads their `weight` in a forward, and the whole
computation happens inside the values' forward.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tombola.adapters.ops import bola_additive, bola_borrowed


class BolaScores(nn.Module):
    """Scores of k candidates over the n x m cells, float32 at least whatever the model is cast to.

    The margins between the best scores are about 1e-4 of their size, below what bfloat16 resolves.
    """

    def __init__(self, k: int, n: int, m: int, *, init_a: float, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(k, n, m, dtype=torch.float32, device=device))
        nn.init.kaiming_uniform_(self.weight, a=init_a)

    def forward(self) -> Float[Tensor, "k n m"]:
        """The scores, as a copy where an engine takes them away again once this returns."""
        partitioned = hasattr(self.weight, "ds_id")  # ZeRO-3
        # FSDP1 puts a view of its flat parameter here, FSDP2 wraps the leaf by giving it a class of its own.
        sharded = type(self.weight) is not nn.Parameter or type(self) is not BolaScores
        return self.weight.clone() if partitioned or sharded else self.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "BolaScores":
        """What `.to()`, `.half()` and `.bfloat16()` call: moves as told, but never narrows.

        What an engine has narrowed behind the module's back (DeepSpeed's bf16 assigns `data`) stays so: ZeRO-3 refuses
        trainable parameters of several types.
        """

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if _is_narrow(moved) and not _is_narrow(tensor) else moved

        return super()._apply(move, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Widens a 16-bit checkpoint, which `assign=True` would otherwise put in place as it is."""
        key = prefix + "weight"
        if key in state_dict:
            state_dict[key] = _at_least_float32(state_dict[key])
        super()._load_from_state_dict(state_dict, prefix, *args)

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
        scores = _at_least_float32(scores)
        if borrow is None:
            return bola_additive(x, scores, self.weight, self.alpha, self.magnitude)
        return bola_borrowed(x, borrow, bias, scores, self.weight, self.alpha, self.magnitude)

    def extra_repr(self) -> str:
        """Shape of the blocks and how they are scaled."""
        return f"{', '.join(map(str, self.weight.shape))}, alpha={self.alpha}, magnitude={self.magnitude}"


def _is_narrow(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.itemsize < 4


def _at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor, widened where an engine has cast it (DeepSpeed's bf16, FSDP1's mixed precision)."""
    return tensor.float() if _is_narrow(tensor) else tensor
