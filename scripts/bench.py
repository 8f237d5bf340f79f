"""`make bench`: time and memory of one training step of BoLA, against PEFT's LoRA and DoRA and the frozen floor.

The decoder layers of SmolLM2-135M's shape (random weights), 4 x 128 tokens, forward and backward, no optimizer, no
vocabulary head (it is the same for all and would only dilute the ratios). One interleaved run: every candidate is
measured next to a LoRA step, in turn before and after it, and what is quoted is the median ratio of those pairs. A
profile beside says which operations the time goes to.

    python scripts/bench.py [--pairs 25] [--dtypes float32 bfloat16] [--layers 30] [--out results/bench]
"""

import argparse
import copy
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaModel

import tombola
from tombola_cli.records import gather

REPOSITORY = Path(__file__).resolve().parents[1]
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
RANK, ROWS, TOKENS, WIDTH = 32, 4, 128, 576
REFERENCE = "LoRA r=32"
PROFILED = {"floor": "frozen floor", "LoRA": REFERENCE, "BoLA": "BoLA k=32"}


def smollm2_shape(layers: int, dtype: torch.dtype) -> nn.Module:
    """Frozen decoder layers with SmolLM2-135M's sizes; the vocabulary, which no step here reads, is small."""
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=64, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    net: Any = LlamaModel(config)
    return net.to(dtype).requires_grad_(False)


def candidates(base: nn.Module, dtype: torch.dtype) -> dict[str, nn.Module]:
    """What is measured, by name; all share the frozen weights, and all adapters have the same trainable number."""
    lora = LoraConfig(r=RANK, lora_alpha=64, target_modules=TARGETS)
    dora = LoraConfig(r=RANK, lora_alpha=64, target_modules=TARGETS, use_dora=True)
    bola = tombola.BolaConfig(target_modules=TARGETS, k=RANK, in_divs=24, out_divs=24, alpha=4.0)
    built = {
        "frozen floor": _shared(base),
        REFERENCE: adapted(base, lora),
        "BoLA k=32": adapted(base, bola),
        "BoLA k=32, additive": listened_to(adapted(base, bola)),
        "DoRA r=32": adapted(base, dora),
    }
    if dtype != torch.float32:
        built["LoRA r=32, factors in bf16"] = adapted(base, lora, autocast_adapter_dtype=False)
    return built


def adapted(base: nn.Module, config: PeftConfig, **options: Any) -> nn.Module:
    """An adapter that has moved a little: at its start it is zero, and some kernels are quicker on zeros."""
    net = get_peft_model(_shared(base), config, **options)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and ("lora_B" in name or "bola_values" in name):
            parameter.data.copy_(1e-3 * torch.randn(parameter.shape, generator=generator))
    return net.train()


def listened_to(net: nn.Module) -> nn.Module:
    """With a hook on every base layer, whose weight BoLA then leaves alone: it adds the delta's own product."""
    for name, module in net.named_modules():
        if name.endswith("base_layer"):
            module.register_forward_hook(lambda *_: None)
    return net


def _shared(base: nn.Module) -> nn.Module:
    return copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})


class Step:
    """One forward and backward on a fixed batch."""

    def __init__(self, dtype: torch.dtype):
        generator = torch.Generator().manual_seed(2)
        self.inputs = torch.randn(ROWS, TOKENS, WIDTH, generator=generator).to(dtype).requires_grad_()
        self.grad = torch.randn(ROWS, TOKENS, WIDTH, generator=generator).to(dtype)

    def __call__(self, net: nn.Module) -> float:
        """Seconds."""
        self.inputs.grad = None
        net.zero_grad(set_to_none=True)
        started = time.perf_counter()
        net(inputs_embeds=self.inputs).last_hidden_state.backward(self.grad)
        return time.perf_counter() - started

    def saved_bytes(self, net: nn.Module) -> int:
        """Bytes of the distinct storages alive for backward that are no parameter, no buffer, and not the input.

        Counted are tensors that nodes of the graph saved, and those that custom functions keep beside them.
        """
        known = {tensor.untyped_storage().data_ptr() for tensor in [*net.parameters(), *net.buffers(), self.inputs]}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = net(inputs_embeds=self.inputs).last_hidden_state
        for tensor in held_by_functions(output.grad_fn):
            note(tensor)
        total = sum(kept.values())
        del output
        return total


def held_by_functions(root: Any) -> list[Tensor]:
    """Tensors among the attributes of the graph's nodes: what a custom function keeps without saving it."""
    found: list[Tensor] = []
    waiting, seen = [root], {root}
    while waiting:
        node = waiting.pop()
        found += [value for value in getattr(node, "__dict__", {}).values() if isinstance(value, Tensor)]
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        waiting += following
    return found


def where_time_goes(nets: dict[str, nn.Module], step: Step, steps: int = 3) -> dict[str, dict[str, float]]:
    """Milliseconds a step that each operation itself took, of the 14 in which BoLA is farthest from the floor."""
    taken: dict[str, dict[str, float]] = {}
    for short, name in PROFILED.items():
        with profile(activities=[ProfilerActivity.CPU]) as record:
            for _ in range(steps):
                step(nets[name])
        taken[short] = {event.key: event.self_cpu_time_total / 1e3 / steps for event in record.key_averages()}
    floor, bola = taken["floor"], taken["BoLA"]
    apart = sorted({*floor, *bola}, key=lambda key: -abs(bola.get(key, 0.0) - floor.get(key, 0.0)))
    rows = {key: {short: taken[short].get(key, 0.0) for short in PROFILED} for key in apart[:14]}
    return rows | {"all": {short: sum(taken[short].values()) for short in PROFILED}}


def measure(dtype: torch.dtype, layers: int, pairs: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Per candidate: trainable number, saved bytes, seconds, and quartiles of its ratio to LoRA."""
    nets = candidates(smollm2_shape(layers, dtype), dtype)
    step = Step(dtype)
    saved = {name: step.saved_bytes(net) for name, net in nets.items()}
    for net in nets.values():
        step(net)
    gc.collect()
    gc.freeze()  # a collection inside a step would be somebody's bad luck
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    ratios: dict[str, list[float]] = {name: [] for name in nets if name != REFERENCE}
    for turn in range(pairs):
        for name in ratios:
            order = [REFERENCE, name] if turn % 2 else [name, REFERENCE]
            took = {one: step(nets[one]) for one in order}
            for one in order:
                seconds[one].append(took[one])
            ratios[name].append(took[name] / took[REFERENCE])
        advance()
    gc.unfreeze()
    rows = {
        name: {
            "trainable": sum(p.numel() for p in net.parameters() if p.requires_grad),
            "saved_bytes": saved[name],
            "seconds_median": statistics.median(seconds[name]),
            "ratio_quartiles": statistics.quantiles(ratios[name], n=4) if name in ratios else [1.0, 1.0, 1.0],
            "saved_ratio": saved[name] / saved[REFERENCE],
        }
        for name, net in nets.items()
    }
    return {"candidates": rows, "profile_ms": where_time_goes(nets, step)}


def tables(dtype: str, measured: dict[str, Any]) -> list[Table]:
    """The measurements and the profile for the terminal."""
    steps = Table(*HEADER, title=f"one training step, {dtype}")
    for name, row in measured["candidates"].items():
        steps.add_row(*cells(name, row))
    operations = Table(*PROFILE_HEADER, title=f"where the time goes, {dtype}")
    for line in profile_lines(measured["profile_ms"]):
        operations.add_row(*line)
    return [steps, operations]


HEADER = ["", "trainable", "time / LoRA (quartiles)", "seconds", "saved, MiB", "saved / LoRA"]
PROFILE_HEADER = ["operation itself, ms a step", *PROFILED]


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """One candidate's line."""
    low, middle, high = row["ratio_quartiles"]
    ratio = "1" if name == REFERENCE else f"{middle:.3f} ({low:.3f} to {high:.3f})"
    mebibytes = f"{row['saved_bytes'] / 2**20:.1f}"
    return [
        name,
        f"{row['trainable']:,}",
        ratio,
        f"{row['seconds_median']:.3f}",
        mebibytes,
        f"{row['saved_ratio']:.3f}",
    ]


def profile_lines(rows: dict[str, dict[str, float]]) -> list[list[str]]:
    """One operation a line."""
    return [[name, *(f"{row[short]:.1f}" for short in PROFILED)] for name, row in rows.items()]


def markdown(result: dict[str, Any]) -> str:
    """The measurements as a page."""
    lines = ["<!-- Written by scripts/bench.py: do not edit. -->", "", "# One training step", "", result["what"], ""]
    for dtype, measured in result["measured"].items():
        rows = [cells(name, row) for name, row in measured["candidates"].items()]
        lines += [
            f"## {dtype}",
            "",
            *_grid(HEADER, rows),
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


def write(options: argparse.Namespace, measured: dict[str, Any], provenance: dict[str, Any]) -> None:
    """`step.json` and `step.md`, after each dtype."""
    what = (
        f"{options.layers} decoder layers of SmolLM2-135M's shape, {ROWS} x {TOKENS} tokens, forward and backward; "
        f"median ratio over {options.pairs} adjacent pairs. LoRA as `get_peft_model` gives it, with float32 factors."
    )
    result = {"what": what, "measured": measured, "provenance": provenance}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "step.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (options.out / "step.md").write_text(markdown(result), encoding="utf-8")


def main() -> int:
    """Measure, print, and write `<out>/step.json` and `<out>/step.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=25, help="adjacent pairs a candidate")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "bench")
    options = parser.parse_args()
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
