"""Records as JSON, every field checked on the way out and in.

A record is evidence, so a file that lacks a field or has a wrong one is refused with its name rather than repaired.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from tombola_cli.records.record import Record, RecordError, Score

STATUSES = ("ok", "failed", "diverged", "interrupted")
# Metrics with a scale of their own; every other one is a share in [0, 1] or a correlation in [-1, 1].
UNBOUNDED_METRICS = ("loss", "perplexity")
# What an ok run must account for. `seconds` maps each phase to its wall time; the others are numbers.
COSTS = ("trainable", "head", "stored_bytes", "seconds", "tokens_per_second", "peak_bytes")
PROVENANCE = ("commit", "dirty", "packages", "hardware", "model", "data", "command")


def to_json(record: Record) -> str:
    """The record as text: sorted keys and one field a line, so that a diff of two records reads well.

    Raises:
        RecordError: the record would be refused when read back.
    """
    data = asdict(record)
    from_dict(data, where=f"record {record.id!r}")
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str, *, where: str) -> Record:
    """The record in `text`; `where` (its file) opens every error message.

    Raises:
        RecordError: the text is not a whole, valid record.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{where}: not JSON ({error}); delete the file or restore it from git") from None
    return from_dict(data, where=where)


def from_dict(data: Any, *, where: str) -> Record:
    """The record that a JSON object describes, each field checked.

    Raises:
        RecordError: names `where`, the first wrong field, what was expected and what is there.
    """
    _check_keys(data, [one.name for one in fields(Record)], where)
    for name in ("id", "started", "finished", "status"):
        _check_type(data[name], (str,), f"{where}: {name}")
    for name in ("config", "ticket", "cost", "provenance"):
        _check_type(data[name], (dict,), f"{where}: {name}")
    for name in ("started", "finished"):
        _check_time(data[name], f"{where}: {name}")
    if data["status"] not in STATUSES:
        raise RecordError(f"{where}: status: expected one of {', '.join(STATUSES)}, got {data['status']!r}")
    _check_type(data["scores"], (list,), f"{where}: scores")
    scores = [_score(one, f"{where}: scores[{index}]") for index, one in enumerate(data["scores"])]
    if data["status"] == "ok":
        _check_cost(data["cost"], f"{where}: cost")
    _check_present(data["provenance"], PROVENANCE, f"{where}: provenance")
    _check_finite(data, where)
    return Record(**{**data, "scores": scores})


def _score(data: Any, where: str) -> Score:
    _check_keys(data, [one.name for one in fields(Score)], where)
    for name in ("task", "split", "metric"):
        _check_type(data[name], (str,), f"{where}.{name}")
    _check_type(data["value"], (int, float), f"{where}.value")
    _check_type(data["n"], (int,), f"{where}.n")
    if data["n"] < 1:
        raise RecordError(f"{where}.n: expected at least 1 example, got {data['n']}")
    if data["metric"] not in UNBOUNDED_METRICS and abs(data["value"]) > 1:
        raise RecordError(f"{where}.value: expected a share in [0, 1] or a correlation, got {data['value']}: / 100?")
    return Score(**data)


def _check_cost(cost: Mapping[str, Any], where: str) -> None:
    _check_present(cost, COSTS, where)
    for name in ("trainable", "head", "stored_bytes"):
        _check_type(cost[name], (int,), f"{where}.{name}")
    for name in ("tokens_per_second", "peak_bytes"):
        _check_type(cost[name], (int, float, type(None)), f"{where}.{name}")
    _check_type(cost["seconds"], (dict,), f"{where}.seconds")
    for phase, seconds in cost["seconds"].items():
        _check_type(seconds, (int, float), f"{where}.seconds.{phase}")


def _check_keys(data: Any, names: list[str], where: str) -> None:
    _check_type(data, (dict,), where)
    _check_present(data, names, where)
    unknown = sorted(set(data) - set(names))
    if unknown:
        raise RecordError(f"{where}: unknown field {unknown[0]!r}; a record has {', '.join(names)}")


def _check_present(data: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    for name in names:
        if name not in data:
            raise RecordError(f"{where}: the field {name!r} is missing")


def _check_type(value: Any, kinds: tuple[type, ...], where: str) -> None:
    # bool is an int to Python; a count that is `true` is a mistake
    if not isinstance(value, kinds) or isinstance(value, bool):
        expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise RecordError(f"{where}: expected {expected}, got {value!r}")


def _check_time(value: str, where: str) -> None:
    try:
        zone = datetime.fromisoformat(value).tzinfo
    except ValueError:
        zone = None
    if zone is None:
        raise RecordError(f"{where}: expected ISO 8601 with a zone (2026-01-31T12:00:00+00:00), got {value!r}")


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{where}: expected a finite number, got {value}; write null where there is none")
    if isinstance(value, Mapping):
        for name, one in value.items():
            _check_finite(one, f"{where}: {name}")
    elif isinstance(value, (list, tuple)):
        for one in value:
            _check_finite(one, where)
