"""How many units (elements or tiles) a SparseDelta config gives a layer."""

import math
from collections.abc import Mapping
from fractions import Fraction

from tombola.adapters.bola_grid import divisors
from tombola.adapters.sparse_delta_config import SparseDeltaConfig


def units_of(config: SparseDeltaConfig, layer: str, out_features: int, in_features: int) -> int:
    """Units of the layer's support; 0 only where a table of counts says 0.

    Raises ValueError, naming the layer and its shape, for a block that does not divide it, and for a count that is no
    whole number of blocks or more than the layer has.
    """
    size, unit = out_features * in_features, config.tile**2
    shape = f"the layer {layer}, whose weight has {out_features} rows and {in_features} columns"
    _check_block(config.tile, shape, out_features, in_features)
    if config.support == "full":
        return size // unit
    if config.density is not None:
        # By the decimal that was written: 0.29 * 100 is 28.999... in binary.
        units = math.floor(Fraction(repr(config.density)) * size) // unit
        if units < 1:
            least = float(Fraction(unit, size))
            raise ValueError(
                f"density={config.density!r} leaves nothing of {shape}: one {_unit_name(config)} is {least:.3g} of it"
            )
        return units
    count = _count(config.count, layer)
    if count > size:
        raise ValueError(f"count={count} is more than {shape}, has: at most {size}")
    if count % unit:
        below, above = count - count % unit, count - count % unit + unit
        nearest = " or ".join(str(c) for c in (below, above) if 0 < c <= size)
        raise ValueError(
            f"count={count} for {shape}, is no whole number of {config.tile} x {config.tile} blocks: it must be a "
            f"multiple of {unit}; the nearest that fit: {nearest}"
        )
    return count // unit


def _unit_name(config: SparseDeltaConfig) -> str:
    return "element" if config.tile == 1 else f"{config.tile} x {config.tile} block"


def _check_block(block: int, shape: str, out_features: int, in_features: int) -> None:
    if out_features % block == 0 and in_features % block == 0:
        return
    fitting = divisors(math.gcd(out_features, in_features))
    nearest = sorted(sorted(fitting, key=lambda fit: abs(math.log(fit / block)))[:3])
    raise ValueError(
        f"block={block} does not divide {shape}: it must divide both; the nearest that fit: "
        f"{', '.join(map(str, nearest))}"
    )


def _count(count: int | Mapping[str, int] | None, layer: str) -> int:
    if not isinstance(count, Mapping):
        assert count is not None
        return count
    fitting = [path for path in count if layer == path or layer.endswith(f".{path}")]
    if not fitting:
        raise ValueError(
            f"count names no number for the layer {layer}: it has {', '.join(list(count)[:8])}"
            f"{', ...' if len(count) > 8 else ''}. Add the layer, with 0 if it is to have no delta"
        )
    return count[max(fitting, key=len)]
