"""New content for a trained parameter: entries that stay bring their optimizer state along, the others start anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from tombola.training.engine import Engine


@dataclass(frozen=True)
class Rewrite:
    """What a parameter shall hold, entry by entry of its first dimension.

    `origin[i]` is the old entry whose optimizer state the new entry i takes. At -1 the state is cleared to 0, or, for a
    key of `state` ("exp_avg", say), taken from `state[key][i]`; keys that the optimizer does not keep are passed over.
    """

    values: Tensor
    origin: Int[Tensor, "n"]
    state: Mapping[str, Tensor] = field(default_factory=dict)


def reindexed(state: Mapping[str, Tensor], name: str, rewrite: Rewrite) -> dict[str, Tensor]:
    """`state` (tensors by "key/parameter name") with those of the parameter `name` as `rewrite` says.

    Scalars such as Adam's `step` stay; so do the other parameters' tensors. The number of entries may change.
    """
    moved = dict(state)
    for path, old in state.items():
        key, _, owner = path.partition("/")
        if owner == name and old.ndim:
            moved[path] = _taken(old, key, name, rewrite)
    return moved


def apply(engine: Engine, rewrites: Mapping[str, Rewrite]) -> None:
    """Rewrites trained parameters in place, with their optimizer state; the Parameter objects stay."""
    for name, rewrite in rewrites.items():
        if name not in engine.shapes:
            raise ValueError(f"rewrite() was asked for {name!r}, which is not among the trained parameters.")
        shape = tuple(engine.shapes[name])
        if tuple(rewrite.values.shape) != shape:
            raise ValueError(
                f"rewrite() keeps a parameter's shape: {name} has {shape}, got {tuple(rewrite.values.shape)}. "
                "Another number of entries needs a new parameter, between two phases."
            )
    state = engine.optimizer_state(tuple(rewrites))
    for name, rewrite in rewrites.items():
        state = reindexed(state, name, rewrite)
    engine.load_values({name: rewrite.values for name, rewrite in rewrites.items()})
    engine.overwrite_optimizer_state({path: value for path, value in state.items() if value.ndim})


def _taken(old: Tensor, key: str, name: str, rewrite: Rewrite) -> Tensor:
    origin = rewrite.origin.to(old.device)
    if origin.shape != rewrite.values.shape[:1] or (origin.numel() and int(origin.max()) >= len(old)):
        raise ValueError(
            f"The rewrite of {name} needs one origin for each of its {len(rewrite.values)} entries, -1 or below "
            f"{len(old)}. Got {tuple(origin.shape)} origins."
        )
    if not old.is_floating_point():
        raise ValueError(
            f"The optimizer state {key} of {name} is quantised in blocks, from which entries cannot be taken one by "
            "one. Set training.optimizer to adamw for a method that rewrites its parameters."
        )
    seeds = rewrite.state[key].to(old) if key in rewrite.state else old.new_zeros(len(origin), *old.shape[1:])
    stays = (origin >= 0).view(-1, *[1] * (old.ndim - 1))
    if not len(old):
        return seeds
    return torch.where(stays, old[origin.clamp(min=0)], seeds)
