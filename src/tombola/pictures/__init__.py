"""Pictures of where an adapter moved the model, drawn from small pooled maps and never from dense deltas."""

from tombola.pictures.densities import draw_densities
from tombola.pictures.moved import LayerMove, Moved, overlap, read_moved, summarise
from tombola.pictures.partition import draw_partition, read_partition
from tombola.pictures.saved import load_moved, save_moved
from tombola.pictures.ticket import draw_moved, draw_ticket

__all__ = [
    "LayerMove", "Moved", "draw_densities", "draw_moved", "draw_partition", "draw_ticket", "load_moved", "overlap",
    "read_moved", "read_partition", "save_moved", "summarise",
]  # fmt: skip
