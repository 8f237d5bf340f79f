"""Which dtype a linear layer computes in, with and without autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast gives a linear layer's product with x; None where autocast leaves x alone."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Inside, products have their operands' dtype: autocast would round the float32 sums over scores to its own."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
