"""Reads parameters that a sharding engine may hold in pieces."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def whole(*parameters: Tensor, dims: int, numel: int | None = None) -> Iterator[tuple[Tensor, ...]]:
    """The parameters in one piece each, of `dims` dimensions and `numel` numbers, for reading inside the block.

    Under ZeRO-3 and FSDP2 this gathers them, so every rank must come here. Raises ValueError where that is not possible
    from here (FSDP1).
    """
    if any(hasattr(parameter, "ds_id") for parameter in parameters):
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(parameters)):
            yield parameters
        return
    pieces = tuple(p.full_tensor() if hasattr(p, "full_tensor") else p for p in parameters)
    for piece in pieces:
        # FSDP1 leaves either a flat shard or a whole view whose memory it has freed.
        other = piece.dim() != dims or numel not in (None, piece.numel())
        if other or (piece.numel() and not piece.is_meta and piece.untyped_storage().nbytes() == 0):
            raise ValueError(
                "an adapter's weight is not whole on this process: wrap the call in "
                "FullyShardedDataParallel.summon_full_params(model), or save the adapter and load it on one process"
            )
    yield pieces


def whole_gradient(parameter: Tensor) -> Tensor:
    """The parameter's gradient in one piece, between backward and the step; zeros where it has none.

    Under ZeRO this gathers it, so every rank must come here.
    """
    gradient = parameter.grad
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):  # ZeRO-3, ZeRO-2
        from deepspeed.utils import safe_get_full_grad

        gradient = safe_get_full_grad(parameter)
    return torch.zeros_like(parameter) if gradient is None else gradient
