"""What makes an entry worth a place: larger is better."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SCORES = ("mcs", "cs", "gm", "wm", "neg_mcs")


def score(kind: str, values: Float[Tensor, "*any"], gradient: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Score of every entry of a delta, from its value w and the loss's gradient g with respect to it.

    - `mcs`: w * g, which is the gradient with respect to a mask of ones over w (arXiv 2507.07140, Eq. 2).
    - `neg_mcs`: -w * g. The sign is the difference between keeping what the batch wants to shrink and what it wants to
      grow: to first order, taking w out changes the loss by -w * g.
    - `cs`: |w * g| (SNIP). `gm`: |g|. `wm`: |w|.

    Raises ValueError for another `kind`.
    """
    if kind not in SCORES:
        raise ValueError(f"A score is one of {', '.join(SCORES)}. Got {kind!r}.")
    if kind == "wm":
        return values.abs()
    if kind == "gm":
        return gradient.abs()
    product = values * gradient
    if kind == "cs":
        return product.abs_()
    return product.neg_() if kind == "neg_mcs" else product


def as_tiles(matrix: Float[Tensor, "out in"], block: int) -> Float[Tensor, "tiles block block"]:
    """Its aligned block x block tiles; the (out / block, in / block) grid row by row.

    Raises ValueError where `block` does not divide the shape.
    """
    rows, columns = matrix.shape
    if rows % block or columns % block:
        raise ValueError(f"Tiles of {block} x {block} do not fill scores of {rows} x {columns}: choose a divisor.")
    grid = matrix.view(rows // block, block, columns // block, block)
    return grid.transpose(1, 2).reshape(-1, block, block)


def block_sums(scores: Float[Tensor, "out in"], block: int) -> Float[Tensor, "tiles"]:
    """Sum of each of `as_tiles`."""
    return as_tiles(scores, block).sum(dim=(1, 2))


def sign_stable(final: Float[Tensor, "*any"], start: Float[Tensor, "*any"]) -> Bool[Tensor, "*any"]:
    """Whether an entry ended with the sign it started with (Zhou et al., 2019); what is exactly 0 has none."""
    return (torch.sign(final) == torch.sign(start)) & (final != 0)
