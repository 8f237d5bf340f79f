"""The one error of a model whose weights cannot be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ModelUnavailable(ValueError):
    """A base model cannot be loaded here; the message says which, why, and what to do. `why` is the reason alone."""

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why


def unavailable(model: Mapping[str, Any], why: str, *, first: str | None = None) -> ModelUnavailable:
    """The error for `model`: the reason, then the ways on; `first` is a way that is better than the usual two."""
    hub = (
        "accept its licence on the hub and run `hf auth login`" if model["gated"] else "let this machine reach the hub"
    )
    ways = [*([first] if first else []), *([hub] if model["repo"] else []), "give a local copy with model.path=DIR"]
    advice = ", or ".join(ways)
    return ModelUnavailable(f"model {model['name']} cannot be loaded: {why}; {advice}", why)
