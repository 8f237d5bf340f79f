"""Exact sparse forward and backward of BoLA as plain tensor functions; no PEFT here."""

from tombola.adapters.ops.additive import bola_additive
from tombola.adapters.ops.borrowed import bola_borrowed
from tombola.adapters.ops.delta import bola_delta
from tombola.adapters.ops.selection import selected_blocks

__all__ = ["bola_additive", "bola_borrowed", "bola_delta", "selected_blocks"]
