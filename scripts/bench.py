"""`make bench`: time and memory of one training step of our adapters, against PEFT's and the frozen floor.

The decoder layers of SmolLM2-135M's shape (random weights), 4 x 128 tokens, forward and backward, no optimizer, no
vocabulary head (it is the same for all and would only dilute the ratios). One interleaved run: every candidate is
measured next to a LoRA step, in turn before and after it, elements next to a SHiRA step too, and what is quoted is the
median ratio of those pairs. A profile beside says which operations the time goes to.

    python scripts/bench.py [--pairs 25] [--dtypes float32 bfloat16] [--layers 30] [--out results/bench]
"""

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from bench_measures import ROWS, TOKENS, Step, file_bytes, state_bytes, trainable, where_time_goes
from bench_nets import ELEMENT, REFERENCE, SHIRA, candidates, smollm2_shape
from bench_report import markdown, tables
from tombola_cli.records import gather

REPOSITORY = Path(__file__).resolve().parents[1]


def measure(dtype: torch.dtype, layers: int, pairs: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Per candidate: trainable number, bytes, seconds, quartiles of its ratio to LoRA; and of every pair."""
    nets = candidates(smollm2_shape(layers, dtype), dtype)
    step = Step(dtype)
    saved = {name: step.saved_bytes(net) for name, net in nets.items()}
    state = {name: state_bytes(net, step) if trainable(net) else 0 for name, net in nets.items()}
    files = {name: file_bytes(net) for name, net in nets.items()}
    for net in nets.values():
        step(net)
    seconds, ratios = interleaved(nets, step, pairs, advance)
    quartiles = {f"{name} / {other}": statistics.quantiles(each, n=4) for (name, other), each in ratios.items()}
    rows = {
        name: {
            "trainable": trainable(net),
            "saved_bytes": saved[name],
            "state_bytes": state[name],
            "file_bytes": files[name],
            "seconds_median": statistics.median(seconds[name]),
            "ratio_quartiles": quartiles.get(f"{name} / {REFERENCE}", [1.0, 1.0, 1.0]),
            "saved_ratio": saved[name] / saved[REFERENCE],
        }
        for name, net in nets.items()
    }
    return {"candidates": rows, "pairs": quartiles, "profile_ms": where_time_goes(nets, step)}


def interleaved(
    nets: dict[str, nn.Module], step: Step, pairs: int, advance: Callable[[], None]
) -> tuple[dict[str, list[float]], dict[tuple[str, str], list[float]]]:
    """Seconds of every step by net, and the ratios of adjacent steps by pair."""
    gc.collect()
    gc.freeze()  # a collection inside a step would be somebody's bad luck
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    ratios: dict[tuple[str, str], list[float]] = {(name, REFERENCE): [] for name in nets if name != REFERENCE}
    ratios[ELEMENT, SHIRA] = []
    for turn in range(pairs):
        for name, other in ratios:
            order = [other, name] if turn % 2 else [name, other]
            took = {one: step(nets[one]) for one in order}
            for one in order:
                seconds[one].append(took[one])
            ratios[name, other].append(took[name] / took[other])
        advance()
    gc.unfreeze()
    return seconds, ratios


def write(options: argparse.Namespace, measured: dict[str, Any], provenance: dict[str, Any]) -> None:
    """`step.json` and `step.md`, after each dtype."""
    what = (
        f"{options.layers} decoder layers of SmolLM2-135M's shape, {ROWS} x {TOKENS} tokens, forward and backward; "
        f"median ratio over {options.pairs} adjacent pairs. LoRA as `get_peft_model` gives it, with float32 factors. "
        "State: values, gradients, AdamW's moments, indices."
    )
    result = {"what": what, "measured": measured, "provenance": provenance}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "step.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (options.out / "step.md").write_text(markdown(result), encoding="utf-8")


def main() -> int:
    """Measure, print, and write `<out>/step.json` and `<out>/step.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=25, help="adjacent pairs a candidate")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "bench")
    options = parser.parse_args()
    if options.pairs < 2 or options.layers < 1:
        parser.error(
            f"quartiles need --pairs of 2 or more, a net --layers of 1 or more. Got {options.pairs}, {options.layers}."
        )
    console = Console()
    provenance = gather(root=REPOSITORY, argv=sys.argv, model={}, data={})
    measured: dict[str, Any] = {}
    for dtype in options.dtypes:
        with Progress(console=console) as progress:
            bar = progress.add_task(f"{dtype}, {options.pairs} pairs a candidate", total=options.pairs)
            measured[dtype] = measure(
                getattr(torch, dtype),
                options.layers,
                options.pairs,
                lambda: progress.advance(bar),  # noqa: B023
            )
        console.print(*tables(dtype, measured[dtype]), sep="\n")
        write(options, measured, provenance)
    return 0


if __name__ == "__main__":
    sys.exit(main())
