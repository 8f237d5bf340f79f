"""Task-specific directions: where, along its own singular directions, a weight changes most for its size."""

import torch
from jaxtyping import Float
from torch import Tensor

from tombola.tickets.draw import top_k


@torch.no_grad()
def task_directions(
    weight: Float[Tensor, "out in"], b: Float[Tensor, "out r"], a: Float[Tensor, "r in"], count: int
) -> tuple[Float[Tensor, "out count"], Float[Tensor, "count in"]]:
    """U and V^T of the `count` singular directions of the weight with the largest change rate under the delta B A.

    The rate of direction i is |u_i^T (B A) v_i| / |sigma_i| (LoRA-Dash, Si et al., 2024, arXiv 2409.01035); a direction
    that the weight lacks (sigma 0) comes first if the delta has it. They come in the order of sigma, descending, and in
    the wider of the weight's dtype and float32.

    Raises ValueError for more directions than the weight has.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    u, sigma, vh = torch.linalg.svd(wide, full_matrices=False)
    change = ((u.T @ b.to(u)) * (vh @ a.to(u).T)).sum(dim=1)  # the diagonal of U^T B A V, without B A
    chosen = top_k(change.abs() / sigma.clamp(min=torch.finfo(sigma.dtype).tiny), count)
    return u[:, chosen], vh[chosen]
