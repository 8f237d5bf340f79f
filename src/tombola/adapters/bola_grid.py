"""BoLA's grid: how a layer's weight is cut into `in_divs` x `out_divs` equal blocks.

A layer with k candidates trains k * (n*m + O*I / (n*m)) numbers, where n = `in_divs` and m = `out_divs`. That is LoRA's
count at rank k exactly when n*m is I or O.
"""

import math


def balanced_grid(out_features: int, in_features: int) -> tuple[int, int]:
    """The squarest grid (n, m) at which k candidates train as many numbers as LoRA of rank k.

    One exists for every shape. It is the papers' own for the papers' layers: 24 x 32 for 768 x 768, and 64 x 64 for
    every projection of Llama-3-8B.
    """
    candidates = [
        (max(n, m) / min(n, m), cells != in_features, n, m)
        for cells in (in_features, out_features)
        for n, m in _divisions(cells)
        if in_features % n == 0 and out_features % m == 0
    ]
    *_, n, m = min(candidates)
    return n, m


def check_grid(grid: tuple[int, int], layer: str, out_features: int, in_features: int) -> None:
    """Raises ValueError, naming the layer, its shape and the nearest grids, unless the grid divides the weight."""
    n, m = grid
    if in_features % n == 0 and out_features % m == 0:
        return
    nearest = " or ".join(f"in_divs={a}, out_divs={b}" for a, b in nearest_grids(grid, out_features, in_features))
    raise ValueError(
        f"in_divs={n}, out_divs={m} does not divide the layer {layer}, whose weight has {out_features} rows and "
        f"{in_features} columns: in_divs must divide {in_features} and out_divs {out_features}. The nearest that fit: "
        f"{nearest}. With in_divs and out_divs left out, each layer gets a grid of its own."
    )


def nearest_grids(grid: tuple[int, int], out_features: int, in_features: int, count: int = 3) -> list[tuple[int, int]]:
    """Grids that divide the weight, nearest by ratio first."""
    n, m = grid
    fitting = [(a, b) for a in divisors(in_features) for b in divisors(out_features)]
    return sorted(fitting, key=lambda fit: (abs(math.log(fit[0] / n)) + abs(math.log(fit[1] / m)), fit))[:count]


def divisors(size: int) -> list[int]:
    """All divisors, ascending."""
    small = [d for d in range(1, math.isqrt(size) + 1) if size % d == 0]
    return sorted({*small, *(size // d for d in small)})


def _divisions(cells: int) -> list[tuple[int, int]]:
    return [(n, cells // n) for n in divisors(cells)]
