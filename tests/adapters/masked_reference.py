"""A masked LoRA delta by the letter of its definition: dense matrices, one line or entry at a time, G = grad^T x.

Shares no code with the package. `how` is what is stored of a factor: "rows", "columns" or "entries", row by row.
Shapes: A (r, in), B (out, r), x (t, in), grad (t, out).
"""

import torch
from torch import Tensor

ROW_COL, ELEMENT = ("columns", "rows"), ("entries", "entries")  # of A and of B


def dense(values: Tensor, places: list[int], shape: tuple[int, int], how: str) -> Tensor:
    """The stored numbers at their places, zero elsewhere."""
    matrix = torch.zeros(shape, dtype=values.dtype)
    for n, place in enumerate(places):
        if how == "rows":
            matrix[place] = values[n]
        elif how == "columns":
            matrix[:, place] = values[:, n]
        else:
            matrix[place // shape[1], place % shape[1]] = values[n]
    return matrix


def picked(matrix: Tensor, places: list[int], how: str) -> Tensor:
    """The matrix's numbers at the places, in the layout in which they are stored."""
    if how == "entries":
        return torch.stack([matrix[place // matrix.shape[1], place % matrix.shape[1]] for place in places])
    lines = [matrix[place] if how == "rows" else matrix[:, place] for place in places]
    return torch.stack(lines, 0 if how == "rows" else 1)


def gradients(x: Tensor, grad: Tensor, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (x, A, B), whole, of the delta scale * B A: G A^T and B^T G, each times scale."""
    whole = grad.T @ x
    return grad @ (scale * b @ a), scale * b.T @ whole, scale * whole @ a.T
