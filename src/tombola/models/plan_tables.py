"""A plan as two tables: parameters by kind of module, memory of one GPU by what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from tombola.models.counts import HEAD

if TYPE_CHECKING:
    from tombola.models.planning import Plan

GIB = 2**30


def plan_tables(plan: Plan) -> list[Table | str]:
    """The lines and tables of `plan`, in the order in which they are printed."""
    share = 100 * plan.trainable / plan.base
    return [
        f"{plan.method} on {plan.model}, task {plan.task}: {plan.trainable:,} trainable parameters, "
        f"{share:.3g} % of {plan.base:,}; the head's {plan.head:,} apart",
        _parameters(plan),
        f"Estimated peak memory per GPU, launch={plan.launch} on {plan.ranks}{_first_phase(plan)}",
        _memory(plan),
        *_settings(plan),
        "steps unknown: nobody has counted this task's training rows"
        if plan.steps is None
        else f"{plan.steps:,} optimizer steps a phase",
    ]


def _first_phase(plan: Plan) -> str:
    return f": of the first phase, which trains all {plan.dense:,} entries of the targets" if plan.dense else ""


def _parameters(plan: Plan) -> Table:
    table = Table()
    table.add_column("modules")
    for name in ("number", "trainable", "stored", "of the model"):
        table.add_column(name, justify="right")
    for kind in plan.kinds:
        if kind.name != HEAD:
            table.add_row(kind.name, *(f"{n:,}" for n in (kind.modules, kind.trainable, kind.stored, kind.base)))
    table.add_section()
    table.add_row("together", "", f"{plan.trainable:,}", f"{plan.stored:,}", f"{plan.base:,}")
    for kind in plan.kinds:
        if kind.name == HEAD:
            table.add_row("head, apart", f"{kind.modules:,}", f"{kind.trainable:,}", f"{kind.stored:,}", "")
    table.add_row("total", "", "", "", f"{plan.total:,}")
    return table


def _settings(plan: Plan) -> list[Table | str]:
    """Which settings of a large delta fit one card, and what to type for the first; nothing for a small delta."""
    if not plan.settings:
        return []
    table = Table()
    for name in ("values", "optimizer", "checkpointing"):
        table.add_column(name)
    table.add_column("GiB", justify="right")
    table.add_column("fits 24 GB?")
    for one in plan.settings:
        checkpointing = "on" if one.gradient_checkpointing else "off"
        cells = (one.values_dtype, one.optimizer, checkpointing, f"{one.memory.total / GIB:.2f}")
        table.add_row(*cells, "yes" if one.fits else "no")
    first = next((one.overrides for one in plan.settings if one.fits), None)
    advice = f"for the first that fits type {first}" if first else "none fits: lower training.token_budget"
    return [f"With {plan.dense or plan.trainable:,} trained numbers on one card; {advice}", table]


def _memory(plan: Plan) -> Table:
    table = Table()
    table.add_column("for")
    table.add_column("GiB", justify="right")
    parts = plan.memory
    activations = f"activations of {plan.micro_batch_tokens:,} tokens"
    for name, size in (
        ("weights", parts.weights),
        ("gradients", parts.gradients),
        ("optimizer", parts.optimizer),
        (activations, parts.activations),
    ):
        table.add_row(name, f"{size / GIB:.2f}")
    table.add_section()
    table.add_row("together", f"{parts.total / GIB:.2f}")
    return table
