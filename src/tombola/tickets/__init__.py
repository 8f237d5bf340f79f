"""Which coordinates a delta gets: scores and draws, as pure functions of tensors."""

from tombola.tickets.directions import task_directions
from tombola.tickets.draw import draw, random_support, top_k
from tombola.tickets.drop import kept_layers
from tombola.tickets.leverage import Lines, leverage_scores
from tombola.tickets.lines import kept_lines, last_passing, without_lines
from tombola.tickets.measure import density, origins, overlap
from tombola.tickets.regrow import drop_fraction, grow_and_drop
from tombola.tickets.rows import ROW_RULES, TOP_FRACTION, above_mean, dominant_mask, row_scores
from tombola.tickets.score import SCORES, as_tiles, block_sums, score, sign_stable

__all__ = [
    "ROW_RULES",
    "SCORES",
    "TOP_FRACTION",
    "Lines",
    "above_mean",
    "as_tiles",
    "block_sums",
    "density",
    "dominant_mask",
    "draw",
    "drop_fraction",
    "grow_and_drop",
    "kept_layers",
    "kept_lines",
    "last_passing",
    "leverage_scores",
    "origins",
    "overlap",
    "random_support",
    "row_scores",
    "score",
    "sign_stable",
    "task_directions",
    "top_k",
    "without_lines",
]
