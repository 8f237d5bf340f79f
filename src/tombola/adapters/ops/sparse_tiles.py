"""Products of a few tiles of a weight: gathered stripes and batched products, where a dense product would waste most.

The tiles are taken in groups that share the buffers of their gathered stripes, so that these stay in the cache.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tombola.adapters.ops.sparse_support import Support
from tombola.adapters.ops.stripes import drawn_stripes, in_order, in_stripes

# Of the stripes gathered at once from one operand. Measured on two cores for 512 tokens: half of it took 1.0 (float32)
# and 1.2 (bfloat16) times as long, four times as much 1.2 and 1.0; see docs/kernels.md.
GROUP_BYTES = 3 * 2**19


def tiles_pay(support: Support, dtype: torch.dtype) -> bool:
    """Whether the tiles' products are cheaper than one dense product.

    A tile costs about 1 + (side / block)^2 times its share of a dense product, with a side of 27 in float32 and 39 in
    half precision (measured on a CPU).
    """
    if support.index is None or support.block == 1:
        return False
    out_features, in_features = support.shape
    side = 39 if dtype.itemsize == 2 else 27
    return support.index.numel() * (support.block**2 + side**2) < out_features * in_features


def tile_gradients(
    x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], support: Support
) -> Float[Tensor, "u block block"]:
    """The chosen tiles of grad^T x."""
    assert support.index is not None
    down, across = _stripes(support)
    by_rows, by_columns = in_stripes(grad, down).transpose(0, 1), in_stripes(x, across).transpose(0, 1)
    result, size = x.new_empty(support.values_shape()), _group(support, x)
    of_grad, of_x = (x.new_empty(size, x.shape[0], support.block) for _ in range(2))
    rows, columns = (support.index // across).split(size), (support.index % across).split(size)
    for tiles, from_rows, from_columns in zip(result.split(size), rows, columns, strict=True):
        left, right = of_grad[: len(tiles)], of_x[: len(tiles)]
        torch.index_select(by_rows, 0, from_rows, out=left)
        torch.index_select(by_columns, 0, from_columns, out=right)
        torch.bmm(left.transpose(1, 2), right, out=tiles)
    return result


def tile_product(x: Float[Tensor, "t in"], tiles: Float[Tensor, "u block block"], support: Support) -> Tensor:
    """x times the transpose of the weight that has these tiles, (t, out)."""
    stripes = _stripes(support)
    total = x.new_zeros(stripes[0], x.shape[0], support.block)
    for group, rows, columns in _groups(support, x):
        products = torch.bmm(drawn_stripes(x, stripes[1], columns), tiles[group].transpose(1, 2))
        total.index_add_(0, rows, products)
    return in_order(total)


def tile_product_back(grad: Float[Tensor, "t out"], tiles: Float[Tensor, "u block block"], support: Support) -> Tensor:
    """grad times the weight that has these tiles, (t, in)."""
    stripes = _stripes(support)
    total = grad.new_zeros(stripes[1], grad.shape[0], support.block)
    for group, rows, columns in _groups(support, grad):
        total.index_add_(0, columns, torch.bmm(drawn_stripes(grad, stripes[0], rows), tiles[group]))
    return in_order(total)


def _stripes(support: Support) -> tuple[int, int]:
    return support.shape[0] // support.block, support.shape[1] // support.block


def _group(support: Support, x: Float[Tensor, "t width"]) -> int:
    """Tiles that are multiplied at once."""
    assert support.index is not None
    stripe = max(1, x.shape[0] * support.block * x.element_size())
    return max(1, min(GROUP_BYTES // stripe, support.index.numel()))


def _groups(
    support: Support, x: Float[Tensor, "t width"]
) -> Iterator[tuple[slice, Int[Tensor, "g"], Int[Tensor, "g"]]]:
    """Which tiles, their stripes of the rows, and their stripes of the columns."""
    assert support.index is not None
    (_, across), size = _stripes(support), _group(support, x)
    rows, columns = support.index // across, support.index % across
    for first in range(0, support.index.numel(), size):
        group = slice(first, first + size)
        yield group, rows[group], columns[group]
