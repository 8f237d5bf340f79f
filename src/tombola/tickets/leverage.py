"""How much each row and column of a weight takes part in its principal subspace."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LARGE = 1024  # of the shorter side: from here on a part of the spectrum is tried before all of it


class Lines(NamedTuple):
    """A number for each row and each column of a weight."""

    rows: Float[Tensor, "out"]
    columns: Float[Tensor, "in"]


def leverage_scores(
    weight: Float[Tensor, "out in"], energy: float = 0.9, *, seed: int = 0, large: int = LARGE
) -> Lines:
    """Leverage scores: sum over q <= k of P[i, q]^2 for row i, of Q[j, q]^2 for column j, where W = P L Q^T.

    k is the smallest number of singular values with `energy` of the squared spectrum. Scores are in [0, 1], and sum to
    k over the rows and over the columns. In float32 at least. Where the shorter side is `large`, the leading part comes
    from a randomised SVD (Halko et al., 2011), drawn from `seed`, as long as a quarter or half of the spectrum will do.

    Source: Partial-LoRA (Damirchi et al., 2025, arXiv 2512.22495); scores after Mahoney and Drineas (2009).
    """
    matrix = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    wanted = energy * float(matrix.double().square().sum())
    left, values, right = _leading(matrix, wanted, seed, large)
    k = _rank(values, wanted)
    return Lines(left[:, :k].square().sum(1), right[:, :k].square().sum(1))


def _leading(matrix: Tensor, wanted: float, seed: int, large: int) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values, the largest first, at least as many as hold the wanted energy."""
    shorter = min(matrix.shape)
    for part in (4, 2) if shorter >= large else ():
        with torch.random.fork_rng(devices=[matrix.device] if matrix.device.type == "cuda" else []):
            torch.manual_seed(seed)
            left, values, right = torch.svd_lowrank(matrix, q=shorter // part, niter=4)
        if float(values.double().square().sum()) >= wanted:
            return left, values, right
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, values, right.T


def _rank(values: Tensor, wanted: float) -> int:
    """How many of the values hold the energy; all where rounding leaves the last a little below it."""
    held = values.double().square().cumsum(0)
    return min(int((held < wanted).sum()) + 1, values.numel())
