"""A sparse delta by the letter of its definition: dense matrices, one unit at a time; shares no code with the package.

delta = scale * gate * values at the support. Units are elements (block 1) or aligned block x block tiles, numbered row
by row. Shapes: values (units,) or (units, block, block), weight (out, in), x (t, in), grad (t, out).
"""

import torch
from torch import Tensor

from tombola.adapters import SparseDeltaLinear


def places(unit: int, block: int, columns: int) -> tuple[slice, slice]:
    """Rows and columns of one unit in a weight of so many columns."""
    down, across = divmod(unit, columns // block)
    return slice(down * block, (down + 1) * block), slice(across * block, (across + 1) * block)


def dense(values: Tensor, units: list[int], shape: tuple[int, int], block: int) -> Tensor:
    """The values at their places, zero elsewhere."""
    matrix = torch.zeros(shape, dtype=values.dtype)
    for value, unit in zip(values, units, strict=True):
        matrix[places(unit, block, shape[1])] = value
    return matrix


def picked(matrix: Tensor, units: list[int], block: int) -> Tensor:
    """The matrix's entries at the units, in the values' layout."""
    tiles = [matrix[places(unit, block, matrix.shape[1])] for unit in units]
    stacked = torch.stack(tiles) if tiles else matrix.new_zeros(0, block, block)
    return stacked.view(-1) if block == 1 else stacked


def gradients(
    x: Tensor, grad: Tensor, weight: Tensor, values: Tensor, gate: float, scale: float, units: list[int], block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (x, values, gate) from the dense weight gradient G = grad^T x."""
    content = dense(values, units, tuple(weight.shape), block)
    whole = grad.T @ x
    for_x = grad @ (weight + scale * gate * content)
    return for_x, scale * gate * picked(whole, units, block), scale * (whole * content).sum()


def parameters(layer: SparseDeltaLinear, name: str = "default") -> tuple[Tensor, Tensor | None]:
    """The layer's values and its gate, None where it has none."""
    gate = layer.sparse_delta_gate[name].weight if name in layer.sparse_delta_gate else None
    return layer.sparse_delta_values[name].weight, gate
