"""What a SparseDelta adapter starts from, drawn from the config's seed and the layer's path, layer by layer."""

import hashlib
import json
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tombola.tickets import random_support


def random_units(seed: int, layer: str, units: int, all_units: int) -> Int[Tensor, "units"]:
    """So many of the layer's units, without replacement and ascending; int64, drawn on the CPU."""
    return random_support(all_units, units, _generator("support", seed, layer))


def start_values(
    init: str, seed: int, layer: str, in_features: int, shape: tuple[int, ...]
) -> Float[Tensor, "units *tile"]:
    """The full support's values, in float32: zeros, U(-1/sqrt(in), 1/sqrt(in)) or N(0, 1/in)."""
    values = torch.zeros(shape)
    bound, generator = 1 / math.sqrt(in_features), _generator("values", seed, layer)
    if init == "kaiming":
        return values.uniform_(-bound, bound, generator=generator)
    if init == "normal":
        return values.normal_(0.0, bound, generator=generator)
    return values


def _generator(*parts: str | int) -> torch.Generator:
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
