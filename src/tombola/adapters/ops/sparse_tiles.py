"""Products of a few tiles of a weight: gathered stripes and batched products, where a dense product would waste most.

The tiles are taken in groups whose gathered stripes are together no larger than the layer's input and output, which
bounds the memory and stays in a CPU's cache.
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
    for group, rows, columns in _groups(support):
        from_grad = drawn_stripes(grad, stripes[0], rows)
        torch.bmm(from_grad.transpose(1, 2), drawn_stripes(x, stripes[1], columns), out=result[group])
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


def _groups(support: Support) -> Iterator[tuple[slice, Int[Tensor, "g"], Int[Tensor, "g"]]]:
    """Which tiles, their stripes of the rows, and their stripes of the columns."""
    assert support.index is not None
    down, across = _stripes(support)
    for first in range(0, support.index.numel(), down + across):
        group = slice(first, first + down + across)
        yield group, support.index[group] // across, support.index[group] % across
