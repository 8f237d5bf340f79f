"""BoLA by the letter of its equations: dense matrices, one candidate at a time; shares no code with the package.

Shapes: scores (k, n, m), values (k, r, c), weight (m r, n c), x (t, n c), grad (t, m r); cell (a, b) is input stripe a
of n and output stripe b of m.
"""

import torch
from torch import Tensor


def chosen_cell(score: Tensor) -> tuple[int, int]:
    """Input and output stripe of one candidate's largest score (equation 3)."""
    flat = int(score.argmax())
    return flat // score.shape[1], flat % score.shape[1]


def dense_delta(scores: Tensor, values: Tensor, alpha: float, magnitude: str) -> Tensor:
    """M * DW of equations 2, 5 and 6, in the three readings of M; (out, in)."""
    k, n, m = scores.shape
    r, c = values.shape[1:]
    content, magnitudes, products = (torch.zeros(m * r, n * c, dtype=values.dtype) for _ in range(3))
    for j in range(k):
        a, b = chosen_cell(scores[j])
        block = (slice(b * r, (b + 1) * r), slice(a * c, (a + 1) * c))
        content[block] += values[j]
        magnitudes[block] += alpha * scores[j, a, b]
        products[block] += alpha * scores[j, a, b] * values[j]
    return {"literal": magnitudes * content, "per_candidate": products, "constant": alpha * content}[magnitude]


def dense_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, scores: Tensor, values: Tensor, alpha: float, magnitude: str
) -> Tensor:
    """The adapted layer's output, (t, out)."""
    y = x @ (weight + dense_delta(scores, values, alpha, magnitude)).T
    return y if bias is None else y + bias


def dense_gradients(
    x: Tensor, grad: Tensor, weight: Tensor, scores: Tensor, values: Tensor, alpha: float, magnitude: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (x, scores, values) from the dense weight gradient; scores straight-through (equations 7 and 8)."""
    k, n, m = scores.shape
    r, c = values.shape[1:]
    dense = grad.T @ x
    drawn = [chosen_cell(scores[j]) for j in range(k)]
    for_scores, for_values = torch.zeros_like(scores), torch.zeros_like(values)
    for j in range(k):
        for a in range(n):
            for b in range(m):
                block = dense[b * r : (b + 1) * r, a * c : (a + 1) * c]
                sharing = [i for i in range(k) if drawn[i] == (a, b)]
                if magnitude == "per_candidate":
                    sharing = [j] if drawn[j] == (a, b) else []
                content = sum(values[i] for i in sharing) if sharing else torch.ones(r, c, dtype=values.dtype)
                for_scores[j, a, b] = alpha * (block * content).sum()
                if drawn[j] == (a, b):
                    for_values[j] = _scale(scores, drawn, j, alpha, magnitude) * block
    for_x = grad @ (weight + dense_delta(scores, values, alpha, magnitude))
    return for_x, for_scores, for_values


def _scale(scores: Tensor, drawn: list[tuple[int, int]], j: int, alpha: float, magnitude: str) -> Tensor | float:
    a, b = drawn[j]
    if magnitude == "constant":
        return alpha
    if magnitude == "per_candidate":
        return alpha * scores[j, a, b]
    return alpha * sum(scores[i, a, b] for i in range(len(drawn)) if drawn[i] == (a, b))
