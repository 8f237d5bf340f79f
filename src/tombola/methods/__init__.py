"""Recipes: how a delta on a frozen model is trained. `Adapter` covers the one-phase tuners of PEFT."""

from tombola.methods.adapter import Adapter
from tombola.methods.base import Base
from tombola.methods.full_finetuning import FullFinetuning
from tombola.methods.protocol import Method

__all__ = ["Adapter", "Base", "FullFinetuning", "Method"]
