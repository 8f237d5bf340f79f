"""Recipes: how a delta on a frozen model is trained. `Adapter` covers the one-phase tuners of PEFT."""

from tombola.methods.adapter import Adapter
from tombola.methods.attach import AdapterRefused
from tombola.methods.base import Base
from tombola.methods.full_finetuning import FullFinetuning
from tombola.methods.lora_dash import LoraDash
from tombola.methods.lota import Lota
from tombola.methods.lt_sft import LtSft
from tombola.methods.majority import Majority
from tombola.methods.milora import Milora
from tombola.methods.partial_lora import PartialLora
from tombola.methods.pilora import Pilora
from tombola.methods.protocol import Method
from tombola.methods.qlora import Qlora
from tombola.methods.random_mask import RandomMask
from tombola.methods.rigsa import Rigsa
from tombola.methods.rosa import Rosa
from tombola.methods.sift import Sift
from tombola.methods.sparse_adapter import SparseAdapter
from tombola.methods.sparta import Sparta
from tombola.methods.spiel import Spiel

__all__ = [
    "Adapter",
    "AdapterRefused",
    "Base",
    "FullFinetuning",
    "LoraDash",
    "Lota",
    "LtSft",
    "Majority",
    "Method",
    "Milora",
    "PartialLora",
    "Pilora",
    "Qlora",
    "RandomMask",
    "Rigsa",
    "Rosa",
    "Sift",
    "SparseAdapter",
    "Sparta",
    "Spiel",
]
