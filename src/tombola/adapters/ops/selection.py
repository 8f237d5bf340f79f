"""BoLA's lottery: which block each candidate draws, and by how much its values are scaled (BoLA, equations 2 to 6)."""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

Magnitude = Literal["literal", "per_candidate", "constant"]


class Draw(NamedTuple):
    """What the scores chose: `delta = sum over j of factors[j] * values[j] at the cell of j`."""

    cells: Int[Tensor, "k"]  # flat, a * m + b
    from_input: Int[Tensor, "k"]  # input stripe a of each candidate's cell
    from_output: Int[Tensor, "k"]  # output stripe b
    factors: Float[Tensor, "k"]
    shared: Float[Tensor, "k k"] | None  # 1 where two candidates drew the same cell; None where no two did
    grid: tuple[int, int]  # (n, m): stripes of the input and of the output
    alpha: float
    magnitude: str

    def totals(self, each: Float[Tensor, "k *rest"]) -> Float[Tensor, "k *rest"]:
        """For every candidate the sum over all that drew its cell: several may, because each takes its own argmax."""
        if self.shared is None:
            return each
        return (self.shared.to(each.dtype) @ each.view(each.shape[0], -1)).view_as(each)


def selected_blocks(scores: Float[Tensor, "k n m"]) -> Int[Tensor, "k"]:
    """Flat cell `a * m + b` that each candidate selects: input stripe `a` of n, output stripe `b` of m (equation 3)."""
    return scores.flatten(1).max(1).indices


def draw_blocks(scores: Float[Tensor, "k n m"], alpha: float, magnitude: str) -> Draw:
    """Every candidate's cell and factor.

    `literal` multiplies the cell's summed scores with its summed values (equations 5 and 6 as printed), so duplicates
    have cross terms; `per_candidate` multiplies before it sums; with `constant` the scores only choose.
    """
    if magnitude not in get_args(Magnitude):
        raise ValueError(f"magnitude is {magnitude!r}; it must be one of {', '.join(get_args(Magnitude))}")
    k, n, m = scores.shape
    drawn, cells = scores.flatten(1).max(1)  # the operation of `selected_blocks`, so that ties fall alike
    # Asking a CPU whether there are duplicates is cheaper than adding them up; asking a GPU would wait for it.
    distinct = cells.device.type == "cpu" and len(set(cells.tolist())) == k
    shared = None if distinct else (cells[:, None] == cells).to(scores.dtype)
    factors = torch.full_like(drawn, alpha) if magnitude == "constant" else alpha * drawn
    draw = Draw(cells, cells // m, cells % m, factors, shared, (n, m), alpha, magnitude)
    return draw if magnitude != "literal" or distinct else draw._replace(factors=draw.totals(factors))
