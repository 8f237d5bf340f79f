"""Numbers beside the loss: memory, and what the adapters say of themselves."""

import resource
import sys
from typing import Any

import torch
from torch import nn


def reset_peak_bytes() -> None:
    """Counts the GPU's peak from here. A process's largest resident size cannot be reset."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """Most memory so far: allocated on the GPU, or, without one, resident in this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # Linux counts in KiB


def unique_blocks(model: nn.Module) -> dict[str, float]:
    """Fewest, mean and most distinct blocks that a layer has selected; empty for adapters that select none."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "unique_blocks")]
    counts = [layer.unique_blocks(name) for layer in layers for name in layer.active_adapters]
    if not counts:
        return {}
    mean = round(sum(counts) / len(counts), 4)
    return {"unique_blocks_min": min(counts), "unique_blocks_mean": mean, "unique_blocks_max": max(counts)}
