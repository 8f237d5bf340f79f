"""Does the same jobs under any launch and keeps what they gave: `[torch.distributed.run] launches.py KIND FOLDER`.

Writes FOLDER/results.safetensors with tensors named `job|tensor`. FOLDER/handover-* is left half done, for a run of
another kind to finish.
"""

import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tests.training.drive import DEFAULTS
from tests.training.tiny import adapted, rows, trained
from torch import nn

from tombola.training import AcceleratedTrainer, Interrupted, Settings, leave, phase, zero

ADAPTERS = ("lora", "bola")


class StopAfter:
    """A hook that stops the run, as a scheduler would, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class NanOnce:
    """Stands in for `accumulate` and makes the loss of its call number `call` NaN."""

    def __init__(self, call: int) -> None:
        self.left = call
        self.original = phase.accumulate

    def __call__(self, *args: Any, **options: Any) -> torch.Tensor:
        self.left -= 1
        return self.original(*args, **options) * (math.nan if self.left == 0 else 1.0)


def trainer(kind: str, folder: Path, validate: Any = None, **settings: Any) -> AcceleratedTrainer:
    return AcceleratedTrainer(
        settings=Settings(**{**DEFAULTS, **settings}), rows=rows(), run_dir=folder, pad_token_id=0,
        launch={"kind": kind}, validate=validate,
    )  # fmt: skip


def two_phases(kind: str, folder: Path, adapter: str) -> dict[str, torch.Tensor]:
    """The second phase trains a model that the first's engine has let go of."""
    model, run = adapted(adapter), trainer(kind, folder)
    for name in ("one", "two"):
        run.train(model, phase=name)
    assert not any(hasattr(parameter, "ds_id") for parameter in model.parameters())
    with torch.no_grad():
        logits = model(input_ids=torch.arange(3, 10)[None]).logits
    return {**trained(model), "logits": logits}


def selected(kind: str, folder: Path, adapter: str) -> dict[str, torch.Tensor]:
    """The best of many validations, on the way and not at the end."""
    values = iter([0.1, 0.3, 0.9, 0.2, 0.4, 0.5])
    model = adapted(adapter)
    run = trainer(kind, folder, validate=lambda model: next(values), select="best", validate_every=2)
    assert run.train(model, phase="one").best_step == 6
    return trained(model)


def spoiled(kind: str, folder: Path, adapter: str, non_finite: str) -> dict[str, torch.Tensor]:
    """One step of twelve is not finite."""
    model, original = adapted(adapter), phase.accumulate
    phase.accumulate = NanOnce(5)  # type: ignore[assignment]
    try:
        history = trainer(kind, folder, non_finite=non_finite).train(model, phase="one")
    finally:
        phase.accumulate = original
    assert (history.skipped, history.rewinds) == ((1, 0) if non_finite == "skip" else (0, 1))
    return trained(model)


def interrupted(kind: str, folder: Path, adapter: str) -> dict[str, torch.Tensor]:
    """Stopped after step 5 by a signal, and resumed."""
    stop(kind, folder, adapter)
    return finish(kind, folder, adapter)


def stop(kind: str, folder: Path, adapter: str) -> None:
    try:
        trainer(kind, folder).train(adapted(adapter), phase="one", hooks=[StopAfter(4)])
    except Interrupted:
        return
    raise AssertionError("not interrupted")


def finish(kind: str, folder: Path, adapter: str) -> dict[str, torch.Tensor]:
    model = adapted(adapter)
    assert trainer(kind, folder).train(model, phase="one").steps == 12
    return trained(model)


def plain_descent(kind: str, folder: Path, adapter: str) -> dict[str, torch.Tensor]:
    """Without clipping and without Adam, whose steps are the same at any scale of the gradient."""
    model = adapted(adapter)
    trainer(kind, folder, optimizer="sgd", lr=0.1, max_grad_norm=None).train(model, phase="one")
    return trained(model)


def half_base(kind: str, folder: Path, adapter: str) -> dict[str, torch.Tensor]:
    """bfloat16 weights under autocast: the adapter's values and scores stay float32."""
    model = adapted(adapter, dtype=torch.bfloat16)
    trainer(kind, folder, mixed_precision="bf16").train(model, phase="one")
    assert {value.dtype for value in trained(model).values()} == {torch.float32}
    return trained(model)


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    zero.PERSISTENT_ELEMENTS = 0  # every parameter of the tiny model is really partitioned
    results: dict[str, dict[str, torch.Tensor]] = {}
    for adapter in ADAPTERS:
        results[f"two phases, {adapter}"] = two_phases(kind, folder / f"two-{adapter}", adapter)
        results[f"selected, {adapter}"] = selected(kind, folder / f"selected-{adapter}", adapter)
        for reaction in ("skip", "rewind"):
            results[f"{reaction}, {adapter}"] = spoiled(kind, folder / f"{reaction}-{adapter}", adapter, reaction)
        results[f"interrupted, {adapter}"] = interrupted(kind, folder / f"interrupted-{adapter}", adapter)
        results[f"descent, {adapter}"] = plain_descent(kind, folder / f"descent-{adapter}", adapter)
        results[f"half, {adapter}"] = half_base(kind, folder / f"half-{adapter}", adapter)
        run = trainer(kind, folder / f"gradients-{adapter}")
        results[f"gradients, {adapter}"] = run.gradients(adapted(adapter), batches=3)
        stop(kind, folder / f"handover-{adapter}", adapter)
    if run.ranks.first:
        flat = {f"{job}|{name}": t.contiguous() for job, tensors in results.items() for name, t in tensors.items()}
        save_file(flat, folder / "results.safetensors")


if __name__ == "__main__":
    main()
    leave()
