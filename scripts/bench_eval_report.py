"""How `scripts/bench_eval.py` shows what it measured: lines for the terminal, and a page."""

from typing import Any

HEADER = ["", "measured", "bar", ""]
CHOOSING, GENERATING, PADDING = 1.5, 3.0, 1.06


def verdicts(result: dict[str, Any], part: str) -> list[list[str]]:
    """Each figure of a part with the bar that it is held against, where it has one."""
    return {"choosing": _choosing, "generating": _generating, "padding": _padding}[part](result[part])


def _choosing(found: dict[str, Any]) -> list[list[str]]:
    return [
        *_rates(found, "lm-eval's HFLM", CHOOSING),
        _same("identical choices", found["same_choices"], found["examples"]),
        ["largest difference of a log-likelihood, nats", f"{found['largest_difference']:.1e}", "", ""],
    ]


def _generating(found: dict[str, Any]) -> list[list[str]]:
    return [
        *_rates(found, "one prompt at a time", GENERATING),
        _same("identical strings", found["examples"] - len(found["different"]), found["examples"]),
    ]


def _padding(found: dict[str, Any]) -> list[list[str]]:
    lines = []
    for name, one in found.items():
        steps = one["steps"]
        per_step = {way: seconds / steps["examples"] for way, seconds in steps["seconds"].items()}
        lines += [
            [f"{name}: forwarded / useful tokens, one micro-batch", f"{one['plain']:.3f}", "", ""],
            [f"{name}: the same, ours", *_held(one["ours"], one["ours"] <= PADDING, f"<= {PADDING}", digits=3)],
            [f"{name}: micro-batches a step, ours", f"{one['micro_batches_a_step']:.1f}", "", ""],
            [f"{name}: seconds a step, ours / plain", f"{per_step['ours']:.1f} / {per_step['theirs']:.1f}", "", ""],
            [f"{name}: a plain step's time / ours", _median(steps["ratio_quartiles"]), "", ""],
            [f"{name}: the same by CPU time", _median(steps["cpu_ratio_quartiles"]), "", ""],
            [f"{name}: largest difference of a step's loss", f"{one['largest_loss_difference']:.1e}", "", ""],
        ]
    return lines


def _rates(found: dict[str, Any], other: str, least: float) -> list[list[str]]:
    by_clock, by_cpu = found["examples_per_second"], found["examples_per_cpu_second"]
    middle = found["ratio_quartiles"][1]
    return [
        ["examples per second, ours", f"{by_clock['ours']:.2f}", "", ""],
        [f"examples per second, {other}", f"{by_clock['theirs']:.2f}", "", ""],
        ["times as many, median of the turns", *_held(middle, middle >= least, f">= {least}")],
        ["the same with quartiles", _median(found["ratio_quartiles"]), "", ""],
        ["the same by CPU time", _median(found["cpu_ratio_quartiles"]), "", ""],
        ["examples per CPU second, ours and theirs", f"{by_cpu['ours']:.2f}, {by_cpu['theirs']:.2f}", "", ""],
    ]


def _median(quartiles: list[float]) -> str:
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _held(measured: float, held: bool, bar: str, digits: int = 2) -> list[str]:
    return [f"{measured:.{digits}f}", bar, "held" if held else "missed"]


def _same(what: str, same: int, examples: int) -> list[str]:
    return [what, f"{same} of {examples}", "all", "held" if same == examples else "missed"]


def markdown(result: dict[str, Any]) -> str:
    """The measurements as a page."""
    asked = result["settings"]
    about = {
        "choosing": f"HellaSwag's first {asked['rows']} validation rows; batches of {asked['batch']} options.",
        "generating": f"{asked['prompts']} GSM8K test questions, evenly spread, in LLM-Adapters' prompt; at most "
        f"{asked['new_tokens']} new tokens, greedy; batches of {asked['batch']}.",
        "padding": f"Optimizer batches of {asked['batch']} rows over one epoch, and {asked['steps']} training steps of "
        "LoRA r = 32 for each data set and way. Every step has the same rows either way.",
    }
    lines = ["<!-- Written by scripts/bench_eval.py: do not edit. -->", "", "# Evaluation and padding", ""]
    lines += ["SmolLM2-135M in float32 on the CPU. What is compared takes turns in one process.", ""]
    for part, what in about.items():
        if part in result:
            lines += [f"## {part.capitalize()}", "", what, "", *_grid(verdicts(result, part))]
    provenance = result["provenance"]
    state = ", files changed since" if provenance["dirty"] else ""
    packages = ", ".join(
        f"{name} {provenance['packages'].get(name, '-')}" for name in ("torch", "transformers", "lm-eval")
    )
    hardware = provenance["hardware"]
    lines += [
        f"`{provenance['command']}` at {provenance['commit']}{state}, {hardware['cpu']}, {hardware['cores']} cores, "
        f"{result['threads']} thread(s), {packages}."
    ]
    return "\n".join(lines) + "\n"


def _grid(rows: list[list[str]]) -> list[str]:
    return (
        ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        + ["| " + " | ".join(row) + " |" for row in rows]
        + [""]
    )
