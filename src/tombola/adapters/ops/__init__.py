"""Exact sparse forward and backward as plain tensor functions; no PEFT here."""

from tombola.adapters.ops.additive import bola_additive
from tombola.adapters.ops.borrowed import bola_borrowed
from tombola.adapters.ops.delta import bola_delta
from tombola.adapters.ops.factor import Kept, spread, stored
from tombola.adapters.ops.joined import Factors, Partition, joined_a, joined_b, scale_ranks_
from tombola.adapters.ops.masked_additive import masked_additive
from tombola.adapters.ops.masked_fused import masked_fused
from tombola.adapters.ops.partitioned import partitioned_lora
from tombola.adapters.ops.selection import selected_blocks
from tombola.adapters.ops.sparse_additive import sparse_additive
from tombola.adapters.ops.sparse_borrowed import sparse_borrowed
from tombola.adapters.ops.sparse_support import Support, scaled, scattered

__all__ = [
    "Factors",
    "Kept",
    "Partition",
    "Support",
    "bola_additive",
    "bola_borrowed",
    "bola_delta",
    "joined_a",
    "joined_b",
    "masked_additive",
    "masked_fused",
    "partitioned_lora",
    "scale_ranks_",
    "scaled",
    "scattered",
    "selected_blocks",
    "sparse_additive",
    "sparse_borrowed",
    "spread",
    "stored",
]
