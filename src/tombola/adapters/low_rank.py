"""A low-rank delta as any LoRA has it."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class LowRank(NamedTuple):
    """A delta as PEFT's LoRA has it, alpha / r * B A."""

    a: Float[Tensor, "r in"]
    b: Float[Tensor, "out r"]
    alpha: float
