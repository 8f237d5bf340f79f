"""Writing a delta into a base weight and taking it out again without a trace."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tombola.adapters.ops.lines import at_lines


@dataclass(frozen=True)
class Merge:
    """What a merge overwrote, so that unmerging is exact where subtracting would drift."""

    lines: Int[Tensor, "l"]
    width: int
    originals: Float[Tensor, "l w"]


@torch.no_grad()
def add_delta(
    layer: nn.Module,
    delta: Float[Tensor, "out in"],
    lines: Int[Tensor, "l"],
    width: int,
    name: str,
    *,
    check: bool,
) -> Merge:
    """Adds the delta to the layer's weight at those lines of `width` numbers, in the wider of the two types.

    Raises ValueError for a quantised or sharded weight and, with `check`, for a sum that is not finite.
    """
    weight, where = at_lines(_plain_weight(layer), lines, width)
    originals = weight[where]
    sums = (originals + at_lines(delta.to(weight.device), lines, width)[0][where]).to(weight.dtype)
    if check and not torch.isfinite(sums).all():
        raise ValueError(f"merging the adapter {name!r} would put NaN or infinity into the weights: it is broken")
    weight[where] = sums
    return Merge(lines, width, originals)


@torch.no_grad()
def put_back(layer: nn.Module, merge: Merge) -> None:
    """Restores the lines that a merge overwrote."""
    plain = _plain_weight(layer)
    weight, where = at_lines(plain, merge.lines.to(plain.device), merge.width)
    weight[where] = merge.originals.to(weight)


def _plain_weight(layer: nn.Module) -> Float[Tensor, "out in"]:
    weight = getattr(layer, "weight", None)
    if hasattr(weight, "ds_id") or hasattr(weight, "full_tensor"):
        raise ValueError(
            f"cannot merge into the weight of {type(layer).__name__}, of which this process holds a shard: "
            "save the adapter, load it on one process, and merge there"
        )
    plain = isinstance(weight, Tensor) and type(weight.data) is Tensor and weight.is_floating_point()
    if weight is None or not plain or weight.itemsize < 2 or weight.dim() != 2:
        raise ValueError(
            f"cannot merge into the weight of {type(layer).__name__}, which is quantised and would be rounded again: "
            "load the base model in float32 or bfloat16, load the adapter onto it, and merge there"
        )
    return weight.data
