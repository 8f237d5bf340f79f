"""BoLA's gradients without a dense one (BoLA, equations 7 and 8).

The scores' straight-through gradient treats every unselected block as all ones. The sum over a block of the dense
gradient `Gy^T X` is `(Px^T Pg)[a, b]`, with the stripe sums `Px` = X summed over the columns of `a` and `Pg` = Gy
summed over the rows of `b`, so all n * m of them cost one (n x T)(T x m) product. Of the dense gradient itself only the
selected blocks are formed.

Precision: block gradients are products in the activations' dtype (summed in float32 or wider inside, then rounded to
that dtype); stripe sums, their product and all that follows are in the scores' dtype, which is float32 or wider.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from tombola.adapters.ops.selection import Draw
from tombola.adapters.ops.stripes import drawn_stripes, in_stripes


def adapter_gradients(
    x: Float[Tensor, "t in"],
    grad: Float[Tensor, "t out"],
    values: Float[Tensor, "k r c"],
    draw: Draw,
    needed: tuple[bool, bool],
    from_grad: Float[Tensor, "k t r"] | None = None,
) -> tuple[Shaped[Tensor, "k n m"] | None, Shaped[Tensor, "k r c"] | None]:
    """Gradients of (scores, values), None where not needed: exact for the values, straight-through for the scores.

    `from_grad` are the drawn stripes of `grad`, where the caller has them already.
    """
    if not any(needed):
        return None, None
    (n, m), dtype = draw.grid, draw.factors.dtype
    # Each operand is read in order by its sums, and the gather then finds it in the cache.
    grad_sums = _stripe_sums(grad, m, dtype) if needed[0] else None
    if from_grad is None:
        from_grad = drawn_stripes(grad, m, draw.from_output)
    x_sums = _stripe_sums(x, n, dtype) if needed[0] else None
    at_cells = torch.bmm(from_grad.transpose(1, 2), drawn_stripes(x, n, draw.from_input)).to(dtype)
    for_scores = None
    if x_sums is not None and grad_sums is not None:
        for_scores = _score_gradient(x_sums.t() @ grad_sums, at_cells, values, draw)
    for_values = at_cells.mul_(draw.factors[:, None, None]).to(values.dtype) if needed[1] else None
    return for_scores, for_values


def _stripe_sums(x: Float[Tensor, "t width"], stripes: int, dtype: torch.dtype) -> Float[Tensor, "t stripes"]:
    return in_stripes(x, stripes).sum(-1, dtype=dtype)


def _score_gradient(
    sums: Float[Tensor, "n m"], at_cells: Float[Tensor, "k r c"], values: Float[Tensor, "k r c"], draw: Draw
) -> Float[Tensor, "k n m"]:
    k = at_cells.shape[0]
    along_values = torch.linalg.vecdot(at_cells.flatten(1), values.flatten(1).to(at_cells.dtype))
    row = sums.flatten()
    if draw.magnitude == "per_candidate":  # a cell that only others drew is an unselected one to this candidate
        rows = row.expand(k, -1).scatter(1, draw.cells[:, None], along_values[:, None])
    else:  # <G, sum of V>: the same for every candidate, hence identical rows
        rows = row.index_copy_(0, draw.cells, draw.totals(along_values)).expand(k, -1)
    return (draw.alpha * rows).view(k, *draw.grid)
