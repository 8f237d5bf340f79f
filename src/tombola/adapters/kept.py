"""How much of a factor is kept: a share, a count or a mask, for all layers or for each by the end of its path."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Int
from torch import Tensor

from tombola.adapters.sparse_delta_start import random_units

KeptInLayer: TypeAlias = "float | int | Sequence[bool] | Tensor"
KeptChoice: TypeAlias = "float | Mapping[str, KeptInLayer]"


def checked(name: str, kept: KeptChoice) -> float | dict[str, Any]:
    """The choice with its masks as flat bool tensors.

    Raises ValueError, naming the setting, unless it is a share in (0, 1], or a table from the ends of layers' paths to
    shares, counts of at least 0 and masks.
    """
    if isinstance(kept, Mapping):
        return {layer: _checked_layer(f"{name}[{layer!r}]", one) for layer, one in kept.items()}
    if not isinstance(kept, float) or not 0.0 < kept <= 1.0:
        raise ValueError(
            f"{name}={kept!r}: it must be a share above 0.0 and at most 1.0 (all), or a dict from the ends of layers' "
            "paths to shares (0.5), counts (4) or lists of bools"
        )
    return kept


def with_counts(kept: float | dict[str, Any]) -> float | dict[str, Any]:
    """The choice as JSON can hold it: each mask replaced by the number of its Trues."""
    if not isinstance(kept, dict):
        return kept
    return {layer: int(one.sum()) if isinstance(one, Tensor) else one for layer, one in kept.items()}


def kept_count(name: str, kept: float | dict[str, Any], layer: str, size: int) -> int:
    """How many of `size` a layer keeps: max(1, round(share * size)) of a share.

    Raises ValueError, naming the layer, where a table has nothing for it, a count is more than there are, or a mask is
    of another length.
    """
    one = _for_layer(name, kept, layer)
    if isinstance(one, Tensor):
        if one.numel() != size:
            raise ValueError(f"{name} has {one.numel()} bools for the layer {layer}: it needs {size}, one for each")
        return int(one.sum())
    if isinstance(one, float):
        return max(1, round(one * size))
    if one > size:
        raise ValueError(f"{name}={one} is more than the layer {layer} has: at most {size}")
    return one


def kept_places(name: str, kept: float | dict[str, Any], layer: str, size: int, seed: int) -> Int[Tensor, "n"]:
    """Which of `size` a layer keeps, ascending, int64: its mask's, or drawn from the seed, the layer and the name."""
    one = _for_layer(name, kept, layer)
    if isinstance(one, Tensor):
        return one.nonzero().flatten()
    return random_units(seed, f"{layer}.{name}", kept_count(name, kept, layer, size), size)


def _checked_layer(name: str, one: KeptInLayer) -> float | int | Tensor:
    if isinstance(one, Tensor | Sequence) and not isinstance(one, str):
        mask = torch.as_tensor(one)
        if mask.dtype != torch.bool:
            raise ValueError(f"{name} has numbers of {mask.dtype}: a mask is of bools, True for what is kept")
        return mask.detach().cpu().flatten()
    share = isinstance(one, float) and 0.0 < one <= 1.0
    count = isinstance(one, int) and not isinstance(one, bool) and one >= 0
    if not share and not count:
        raise ValueError(
            f"{name}={one!r}: it must be a share above 0.0 and at most 1.0, a count of at least 0, or a list of bools"
        )
    return cast(float, one)


def _for_layer(name: str, kept: float | dict[str, Any], layer: str) -> Any:
    if not isinstance(kept, dict):
        return kept
    fitting = [path for path in kept if layer == path or layer.endswith(f".{path}")]
    if not fitting:
        known = f"{', '.join(list(kept)[:8])}{', ...' if len(kept) > 8 else ''}" or "nothing"
        raise ValueError(
            f"{name} names nothing for the layer {layer}: it has {known}. Add the layer, with 1.0 if all of it is kept"
        )
    return kept[max(fitting, key=len)]
