"""A sparse delta on a CPU in compiled code (`sparse_cpu.c`): its sum with the weight, and its gradient."""

import ctypes

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from tombola.adapters.ops.compiled import HALF, SPAN, call, is_compiled_for, numbers
from tombola.adapters.ops.sparse_support import Support

TILES = (16, 32, 64)  # sides that fill vector registers


class _Chosen(ctypes.Structure):
    _fields_ = numbers("index", "units", "rows", "columns", "block", "half", "threads")


def compiled(matrix: Tensor, delta: Tensor, support: Support) -> bool:
    """Whether there is compiled code to add this delta to this weight."""
    narrow = delta.dtype.itemsize <= 4  # a float64 delta keeps its precision until it is in the sum
    return _known(matrix, support) and narrow


def compiled_pays(x: Float[Tensor, "t in"], support: Support) -> bool:
    """Whether compiled code for the chosen units alone is cheaper than one dense product.

    In units of an entry of the dense product: an entry of a tile costs 1.2, an element 2.2, and putting a row of an
    operand in order for elements 30; in bfloat16, whose dense products are quicker, twice as much. Measured on two
    cores for 512 tokens.
    """
    if not _known(x, support) or support.index is None:
        return False
    out_features, in_features = support.shape
    entries = support.index.numel() * support.block**2
    cost = 1.2 * entries if support.block > 1 else 2.2 * entries + 30 * (out_features + in_features)
    return cost * 4 / x.itemsize < out_features * in_features


def with_elements(weight: Float[Tensor, "out in"], delta: Float[Tensor, "u"], support: Support) -> Tensor:
    """weight + delta, a new matrix."""
    weight = weight.contiguous()
    whole = torch.empty_like(weight)
    _call("add_elements", whole, weight, delta.float().contiguous(), support=support)
    return whole


def lend_tiles(
    weight: Float[Tensor, "out in"], delta: Float[Tensor, "u block block"], support: Support
) -> Shaped[Tensor, "u block block"]:
    """Adds delta to the contiguous weight in place, and gives what was there."""
    saved = weight.new_empty(support.values_shape())
    _call("lend_tiles", weight, saved, delta.float().contiguous(), support=support)
    return saved


def restore_tiles(weight: Float[Tensor, "out in"], saved: Shaped[Tensor, "u block block"], support: Support) -> None:
    """Puts back what `lend_tiles` gave."""
    _call("restore_tiles", weight, saved, support=support)


def compiled_gradients(
    x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], support: Support
) -> Float[Tensor, "u *tile"]:
    """grad^T x at the support, in float32, the same bits for any number of threads."""
    x, grad = x.contiguous(), grad.contiguous()
    result = torch.empty(support.values_shape(), dtype=torch.float32)
    if support.block > 1:
        _call("tile_gradients", result, grad, x, tokens=len(x), support=support)
    else:
        room = torch.empty(sum(support.shape) * SPAN, dtype=torch.float32)
        _call("element_gradients", result, grad, x, room, tokens=len(x), support=support)
    return result


def _known(matrix: Tensor, support: Support) -> bool:
    return is_compiled_for(matrix) and support.index is not None and support.block in (1, *TILES)


def _call(function: str, *tensors: Tensor, tokens: int | None = None, support: Support) -> None:
    assert support.index is not None
    index, half = support.index.int().contiguous(), HALF[tensors[1].dtype]
    counts = (len(index), *support.shape, support.block, half, torch.get_num_threads())
    call(function, *tensors, *([] if tokens is None else [tokens]), _Chosen(index.data_ptr(), *counts))
