"""Which classes a config may name: Hydra's `instantiate` runs whatever `_target_` says, so these are listed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tombola_cli.config.nearest import nearest

# A class of our package, or of one of its rooms; not `tombola.run.os.system`, which Hydra would find as well.
OURS = re.compile(r"tombola\.((adapters|methods|tasks)\.)?[A-Z][A-Za-z0-9]*")
# The configs of PEFT's tuners that adapt weights with no more input than a config.
TUNERS: tuple[str, ...] = (
    "AdaLora",
    "BOFT",
    "C3A",
    "Delora",
    "FourierFT",
    "Gralora",
    "HRA",
    "Hira",
    "IA3",
    "LNTuning",
    "LoHa",
    "LoKr",
)
TUNERS += ("Lora", "Miss", "OFT", "OSF", "RandLora", "Road", "Shira", "Supertuning", "TinyLora", "UniLora", "VBLoRA")
TUNERS += ("Vera", "WaveFT")
PEFT = tuple(f"peft.{name}Config" for name in TUNERS)


def target_faults(config: Any) -> list[str]:
    """One line for every `_target_` outside the list, wherever it hides in the config."""
    return [line for path, target in _targets(config, "") if (line := _fault(path, target))]


def _fault(path: str, target: Any) -> str | None:
    if target is None or (isinstance(target, str) and (OURS.fullmatch(target) or target in PEFT)):
        return None
    meant = nearest(target, PEFT) if isinstance(target, str) and target.startswith("peft.") else None
    end = f"; did you mean {meant}?" if meant else "; a config may name tombola's classes and peft's tuner configs"
    return f"{path}={target}: this class is not on the allow-list{end}"


def _targets(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            here = f"{path}.{name}" if path else str(name)
            if name == "_target_":
                yield here, value
            yield from _targets(value, here)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, f"{path}.{index}")
