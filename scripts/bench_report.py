"""How `scripts/bench.py` shows what it measured: tables, the bars it is held against, and a page."""

from typing import Any

from rich.table import Table

from bench_measures import PROFILED
from bench_nets import BLOCKS, ELEMENT, MASKED, PARTITIONED, REFERENCE, SHIRA

HEADER = [
    "", "trainable", "time / LoRA (quartiles)", "seconds", "saved, MiB", "saved / LoRA", "state, bytes a value",
    "file, bytes a value",
]  # fmt: skip
PROFILE_HEADER = ["operation itself, ms a step", *PROFILED]
VERDICT_HEADER = ["bar", "measured", "at most", ""]
LOW_RANK = {(MASKED, REFERENCE): 1.00, (PARTITIONED, REFERENCE): 1.00}
TIMES = {  # candidate, reference -> the ratio allowed
    "float32": {(BLOCKS, REFERENCE): 1.00, (ELEMENT, REFERENCE): 1.15, (ELEMENT, SHIRA): 0.87, **LOW_RANK},
    "bfloat16": {(BLOCKS, REFERENCE): 0.93, (ELEMENT, REFERENCE): 0.95, (ELEMENT, SHIRA): 0.87, **LOW_RANK},
}
SAVED = (ELEMENT, BLOCKS, MASKED, PARTITIONED)
STATE, FILE = 20.1, {ELEMENT: 8.5, BLOCKS: 4.1}


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """One candidate's line."""
    ratio = "1" if name == REFERENCE else quartiles(row["ratio_quartiles"])
    per_value = [
        f"{row[key] / row['trainable']:.2f}" if row["trainable"] else "" for key in ("state_bytes", "file_bytes")
    ]
    mebibytes = f"{row['saved_bytes'] / 2**20:.1f}"
    seconds, saved = f"{row['seconds_median']:.3f}", f"{row['saved_ratio']:.3f}"
    return [name, f"{row['trainable']:,}", ratio, seconds, mebibytes, saved, *per_value]


def quartiles(of: list[float]) -> str:
    """The median with the quartiles around it."""
    low, middle, high = of
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def verdicts(dtype: str, measured: dict[str, Any]) -> list[list[str]]:
    """Each bar with what was measured: medians of adjacent pairs, and bytes."""
    rows = measured["candidates"]
    lines = [
        _verdict(f"time of {name} / {other}", measured["pairs"][f"{name} / {other}"][1], bar)
        for (name, other), bar in TIMES.get(dtype, {}).items()
    ]
    saved = {name: rows[name]["saved_ratio"] for name in SAVED}
    lines += [_verdict(f"bytes saved for backward of {name} / LoRA", ratio, 1.0) for name, ratio in saved.items()]
    for name, most in FILE.items():
        row = rows[name]
        lines += [
            _verdict(f"training state of {name}, bytes a value", row["state_bytes"] / row["trainable"], STATE),
            _verdict(f"file of {name}, bytes a value", row["file_bytes"] / row["trainable"], most),
        ]
    return lines


def _verdict(what: str, measured: float, most: float) -> list[str]:
    return [what, f"{measured:.3f}", f"{most:.2f}", "held" if measured <= most else "missed"]


def profile_lines(rows: dict[str, dict[str, float]]) -> list[list[str]]:
    """One operation a line."""
    return [[name, *(f"{row[short]:.1f}" for short in PROFILED)] for name, row in rows.items()]


def tables(dtype: str, measured: dict[str, Any]) -> list[Table]:
    """The measurements, the bars and the profile for the terminal."""
    steps = Table(*HEADER, title=f"one training step, {dtype}")
    for name, row in measured["candidates"].items():
        steps.add_row(*cells(name, row))
    bars = Table(*VERDICT_HEADER, title=f"bars, {dtype}")
    for line in verdicts(dtype, measured):
        bars.add_row(*line)
    operations = Table(*PROFILE_HEADER, title=f"where the time goes, {dtype}")
    for line in profile_lines(measured["profile_ms"]):
        operations.add_row(*line)
    return [steps, bars, operations]


def markdown(result: dict[str, Any]) -> str:
    """The measurements as a page."""
    lines = ["<!-- Written by scripts/bench.py: do not edit. -->", "", "# One training step", "", result["what"], ""]
    for dtype, measured in result["measured"].items():
        rows = [cells(name, row) for name, row in measured["candidates"].items()]
        lines += [
            f"## {dtype}",
            "",
            *_grid(HEADER, rows),
            *_grid(VERDICT_HEADER, verdicts(dtype, measured)),
            *_grid(PROFILE_HEADER, profile_lines(measured["profile_ms"])),
        ]
    provenance = result["provenance"]
    lines += [f"`{provenance['command']}` at {provenance['commit']}, {provenance['hardware']['cpu']}, "]
    lines[-1] += f"{provenance['hardware']['cores']} cores, torch {provenance['packages']['torch']}, "
    lines[-1] += f"peft {provenance['packages']['peft']}."
    return "\n".join(lines) + "\n"


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    return (
        ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        + ["| " + " | ".join(row) + " |" for row in rows]
        + [""]
    )
