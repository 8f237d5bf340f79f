"""What holds while a phase trains, and not after it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tombola.training.weights import base_model


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Deterministic kernels on the CPU, where they cost nothing measurable.

    On CUDA they cost speed (attention's backward, index sums) and an environment variable set before start-up.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # it guards against bugs, and writes every new tensor
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill


@contextlib.contextmanager
def activation_checkpointing(model: nn.Module, *, enabled: bool) -> Iterator[None]:
    """Layers' activations are computed again in backward. transformers' default is the non-reentrant kind.

    That kind needs no input that requires gradients, so the frozen layers below the first adapter stay cheap.
    """
    base: Any = base_model(model)
    if enabled:
        base.activation_checkpointing_enable()
    try:
        yield
    finally:
        if enabled:
            base.activation_checkpointing_disable()  # generation wants its cache, which checkpointing turns off
