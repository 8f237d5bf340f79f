"""Products of a few tiles of a weight: gathered stripes and batched products, where a dense product would waste most.

The tiles are taken in groups whose gathered stripes are together smaller than the layer's input and output, and which
share their buffers: larger groups in fresh memory took a CPU two to three times as long.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tombola.adapters.ops.sparse_support import Support
from tombola.adapters.ops.stripes import drawn_stripes, in_order


def tiles_pay(support: Support) -> bool:
    """Whether the tiles' products are cheaper than one dense product.

    A tile costs about 1 + (32 / block)^2 times its share of a dense product (measured on a CPU for blocks of 4 to 64).
    """
    if support.index is None or support.block == 1:
        return False
    out_features, in_features = support.shape
    return support.index.numel() * (support.block**2 + 32**2) < out_features * in_features


def tile_gradients(
    x: Float[Tensor, "t in"], grad: Float[Tensor, "t out"], support: Support
) -> Float[Tensor, "u block block"]:
    """The chosen tiles of grad^T x."""
    stripes = _stripes(support)
    result = x.new_empty(support.values_shape())
    gathered = x.new_empty(2, _group(support), x.shape[0], support.block)
    for group, rows, columns in _groups(support):
        from_grad, from_x = gathered[:, : rows.numel()]
        drawn_stripes(grad, stripes[0], rows, out=from_grad)
        drawn_stripes(x, stripes[1], columns, out=from_x)
        torch.bmm(from_grad.transpose(1, 2), from_x, out=result[group])
    return result


def tile_product(x: Float[Tensor, "t in"], tiles: Float[Tensor, "u block block"], support: Support) -> Tensor:
    """x times the transpose of the weight that has these tiles, (t, out)."""
    stripes = _stripes(support)
    total = x.new_zeros(stripes[0], x.shape[0], support.block)
    for group, rows, columns in _groups(support):
        products = torch.bmm(drawn_stripes(x, stripes[1], columns), tiles[group].transpose(1, 2))
        total.index_add_(0, rows, products)
    return in_order(total)


def tile_product_back(grad: Float[Tensor, "t out"], tiles: Float[Tensor, "u block block"], support: Support) -> Tensor:
    """grad times the weight that has these tiles, (t, in)."""
    stripes = _stripes(support)
    total = grad.new_zeros(stripes[1], grad.shape[0], support.block)
    for group, rows, columns in _groups(support):
        total.index_add_(0, columns, torch.bmm(drawn_stripes(grad, stripes[0], rows), tiles[group]))
    return in_order(total)


def _stripes(support: Support) -> tuple[int, int]:
    return support.shape[0] // support.block, support.shape[1] // support.block


def _group(support: Support) -> int:
    """Tiles that are multiplied at once."""
    assert support.index is not None
    return max(1, min(sum(_stripes(support)) // 3, support.index.numel()))


def _groups(support: Support) -> Iterator[tuple[slice, Int[Tensor, "g"], Int[Tensor, "g"]]]:
    """Which tiles, their stripes of the rows, and their stripes of the columns."""
    assert support.index is not None
    _, across = _stripes(support)
    rows, columns = support.index // across, support.index % across
    for first in range(0, support.index.numel(), _group(support)):
        group = slice(first, first + _group(support))
        yield group, rows[group], columns[group]
