"""BoLA's delta as a dense matrix, for merging; training never needs it."""

from jaxtyping import Float
from torch import Tensor

from tombola.adapters.ops.selection import draw_blocks


def bola_delta(
    scores: Float[Tensor, "k n m"], values: Float[Tensor, "k r c"], alpha: float, magnitude: str
) -> Float[Tensor, "out in"]:
    """Dense (out, in) delta in the scores' dtype; autograd through it knows the selected blocks only."""
    draw = draw_blocks(scores, alpha, magnitude)
    n, m = draw.grid
    _, rows, columns = values.shape
    blocks = draw.factors.new_zeros(n * m, rows, columns)
    blocks = blocks.index_add(0, draw.cells, draw.factors[:, None, None] * values.to(draw.factors.dtype))
    return blocks.view(n, m, rows, columns).permute(1, 2, 0, 3).reshape(m * rows, n * columns)
