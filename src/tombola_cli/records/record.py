"""What one run did: a frozen `Record` with its `Score`s."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class RecordError(ValueError):
    """A record that cannot be evidence: the message names the file, the field, and what was expected."""


@dataclass(frozen=True)
class Score:
    """One measured number: `value` of `metric` over `n` examples of `split` of `task`, a share and not a percentage."""

    task: str
    split: str
    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class Record:
    """One run: what was asked for, what came out, what it cost, and where it came from.

    `started` and `finished` are ISO 8601 with a time zone; `cost` counts parameters (`trainable`: the adapter's alone,
    `head`: the new head's), bytes, and seconds per phase; a cost that does not apply to a run is null.
    """

    id: str
    started: str
    finished: str
    status: str
    config: dict[str, Any]
    scores: list[Score]
    ticket: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
