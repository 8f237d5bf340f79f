"""Modules that keep their numbers in the precision they need, whatever the model around them is cast to."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn


class WideLeaf(nn.Module):
    """A leaf with one `weight`, which any sharding engine can hold: float32 at least, or always bfloat16 if `narrow`.

    FSDP, ZeRO-3 and CPU offloading bring a parameter whole to its own module's forward, and again to that module's
    backward, and nowhere else. So a layer calls its leaves and never reads their `weight` in a forward.
    """

    weight: nn.Parameter
    narrow = False

    def lent(self) -> Tensor:
        """The weight for use outside this module, as a copy where an engine takes it away again once forward ends."""
        weight = self.weight  # once: torch looks a module's parameters up in Python
        partitioned = hasattr(weight, "ds_id")  # ZeRO-3
        # FSDP1 puts a view of its flat parameter here, FSDP2 gives the leaf a class named so.
        sharded = type(weight) is not nn.Parameter or type(self).__name__.startswith("FSDP")
        return weight.clone() if partitioned or sharded else weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WideLeaf":
        """What `.to()`, `.half()` and `.bfloat16()` call: moves as told, but never narrows.

        What an engine has narrowed behind the module's back (DeepSpeed's bf16 assigns `data`) stays so: ZeRO-3 refuses
        trainable parameters of several types.
        """
        return super()._apply(lambda tensor: _moved(tensor, fn(tensor), narrow=self.narrow), recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Widens a 16-bit checkpoint, which `assign=True` would otherwise put in place as it is."""
        key = prefix + "weight"
        if key in state_dict and not self.narrow:
            state_dict[key] = at_least_float32(state_dict[key])
        super()._load_from_state_dict(state_dict, prefix, *args)


class WideBuffers(BufferDict):
    """Buffers by adapter name that are moved as told, but never narrowed."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WideBuffers":
        return super()._apply(lambda tensor: _moved(tensor, fn(tensor)), recurse)


def at_least_float32(tensor: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The tensor, widened where an engine has cast it (DeepSpeed's bf16, FSDP1's mixed precision)."""
    return tensor.float() if is_narrow(tensor) else tensor


def is_narrow(tensor: Tensor) -> bool:
    """True for 16-bit floats and less."""
    return tensor.is_floating_point() and tensor.itemsize < 4


def _moved(before: Tensor, after: Tensor, *, narrow: bool = False) -> Tensor:
    cast = after.dtype != before.dtype
    keep = cast and (narrow or (is_narrow(after) and not is_narrow(before)))
    return before.to(after.device) if keep else after
