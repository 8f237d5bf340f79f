"""Which row and column of the picture a weight belongs to: rows are kinds of module, columns are layers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# "layers.11.self_attn.q_proj": what comes before the first number, the number, what comes after it.
_LAYER = re.compile(r"^(?:.*?\.)?(?P<layer>\d+)\.(?P<module>.+)$")


@dataclass(frozen=True)
class Layout:
    """Rows and columns of a mosaic, with the place of each weight in it."""

    rows: tuple[str, ...]  # labels
    columns: tuple[str, ...]  # layer numbers; "" for weights outside the layers
    places: dict[str, tuple[int, int]]  # name -> (row, column)


def lay_out(names: Iterable[str]) -> Layout:
    """Place every weight; rows keep the model's order, layers are sorted by number."""
    split = {name: _split(name) for name in names}
    modules = tuple(dict.fromkeys(module for _, module in split.values()))
    layers = sorted({layer for layer, _ in split.values()})
    places = {name: (modules.index(module), layers.index(layer)) for name, (layer, module) in split.items()}
    return Layout(_shorten(modules), tuple(str(layer) if layer >= 0 else "" for layer in layers), places)


def _split(name: str) -> tuple[int, str]:
    match = _LAYER.match(name)
    return (int(match["layer"]), match["module"]) if match else (-1, name)


def _shorten(modules: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest endings that still tell the modules apart: `q_proj`, but `attention.output.dense`."""
    return tuple(_shortest_ending(module, modules) for module in modules)


def _shortest_ending(module: str, modules: tuple[str, ...]) -> str:
    parts = module.split(".")
    for length in range(1, len(parts)):
        ending = ".".join(parts[-length:])
        if sum(other == ending or other.endswith("." + ending) for other in modules) == 1:
            return ending
    return module
