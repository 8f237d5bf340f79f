"""What a method adapts against what the model has: target modules that exist, a grid that divides their layers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import gcd
from typing import Any

from tombola_cli.config.nearest import did_you_mean
from tombola_cli.config.shapes import EVERY_LINEAR, Shape, linear_layers, names, targeted

GRID = ("in_divs", "out_divs")


def layer_faults(config: dict[str, Any]) -> list[str]:
    """A line for each target module that names no layer of the model, and one for a grid that does not divide some."""
    adapter = config["method"].get("config") or {}
    targets = adapter.get("target_modules")
    if not targets:
        return []
    try:
        layers = linear_layers(config["model"]["architecture"], config["model"]["role"])
    except ValueError as error:
        return [str(error)]
    faults = list(_target_faults(targets, layers, config["model"]["name"]))
    chosen = {} if faults and isinstance(targets, str) else targeted(targets, layers)
    if all(isinstance(adapter.get(name), int) and adapter[name] > 0 for name in GRID):
        faults.extend(_grid_fault(adapter["in_divs"], adapter["out_divs"], chosen))
    return faults


def _target_faults(targets: str | list[str], layers: dict[str, Shape], model: str) -> Iterable[str]:
    leaves = sorted({path.rpartition(".")[2] for path in layers})
    if isinstance(targets, list):
        for target in targets:
            if not any(names(str(target), path) for path in layers):
                line = f"method.config.target_modules: {model} has no linear layer {target}"
                yield f"{line}; {did_you_mean(str(target), leaves)}"
    elif targets != EVERY_LINEAR:
        try:
            found = targeted(targets, layers)
        except re.error as error:
            yield f"method.config.target_modules={targets}: not a pattern ({error}); give a list: [{', '.join(leaves)}]"
        else:
            if not found:
                wanted = f"one text is a pattern over the whole path, such as {next(iter(layers))}"
                yield f"method.config.target_modules={targets}: matches no layer of {model}; {wanted}"


def _grid_fault(in_divs: int, out_divs: int, layers: dict[str, Shape]) -> Iterable[str]:
    bad = {path: shape for path, shape in layers.items() if shape[0] % out_divs or shape[1] % in_divs}
    if bad:
        named = ", ".join(f"{path.rpartition('.')[2]} ({out} x {width})" for path, (out, width) in bad.items())
        fits = _nearest_grids(in_divs, out_divs, layers.values())
        yield (
            f"method.config.in_divs={in_divs}, out_divs={out_divs}: this grid does not divide {named} (out x in); "
            f"nearest that divide every adapted layer: {fits}"
        )


def _nearest_grids(in_divs: int, out_divs: int, shapes: Iterable[Shape]) -> str:
    """Two grids as one would type them, from the common divisors of the layers' columns and rows."""
    shapes = list(shapes)
    columns = _nearest_divisors(gcd(*(shape[1] for shape in shapes)), in_divs)
    rows = _nearest_divisors(gcd(*(shape[0] for shape in shapes)), out_divs)
    grids = dict.fromkeys([(columns[0], rows[0]), (columns[-1], rows[0]), (columns[0], rows[-1])])
    return ", ".join(f"in_divs={width} out_divs={height}" for width, height in list(grids)[:2])


def _nearest_divisors(number: int, wanted: int) -> list[int]:
    """The one or two divisors of `number` nearest to `wanted`."""
    divisors = sorted((one for one in range(1, number + 1) if number % one == 0), key=lambda one: abs(one - wanted))
    return divisors[:1] if divisors[0] == wanted else divisors[:2]
