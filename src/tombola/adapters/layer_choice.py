"""What the configs of all tuners here share: which layers they name, and how they are written to a file."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from peft import PeftConfig


def prepare_layer_choice(config: PeftConfig) -> None:
    """Puts the fields that name layers into the form PEFT matches; raises ValueError where they contradict."""
    # PEFT matches names against sets; a set also makes the order of the list irrelevant.
    for name in ("target_modules", "exclude_modules"):
        if isinstance(value := getattr(config, name), list):
            setattr(config, name, set(value))
    chosen, pattern, targets = (
        getattr(config, name) for name in ("layers_to_transform", "layers_pattern", "target_modules")
    )
    if pattern and chosen is None:
        raise ValueError("layers_pattern is given without layers_to_transform: say which layers, e.g. [0, 1]")
    if isinstance(targets, str) and chosen is not None:
        raise ValueError(
            "layers_to_transform needs target_modules to be a list of names; "
            f"target_modules={targets!r} is a pattern, which can say the layers itself"
        )


def with_sorted_sets(fields: dict[str, Any]) -> dict[str, Any]:
    """Sets as sorted lists, so that equal configs are saved as equal bytes."""
    return {key: sorted(value) if isinstance(value, set) else value for key, value in fields.items()}


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Raises ValueError, with the nearest name, for a value that is none of the known."""
    if value in known:
        return
    near = get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name}={value!r} is unknown: it must be one of {', '.join(known)}{hint}")
