"""Runs tiny training jobs, to be killed, resumed and compared: `python -m tests.training.drive SPECS.json`.

SPECS is a list of jobs, done one after the other. Under torch.distributed.run every rank does them all. Alone, the
driver imports everything once and forks the ranks of each job, so that a killed one costs a second and not ten; it
prints their exit statuses as JSON.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.training import killing
from tests.training.tiny import adapted, rows
from torch import nn

from tombola.training import AcceleratedTrainer, Interrupted, Settings, Window, zero
from tombola.training.random_state import derived_seed

DEFAULTS: dict[str, Any] = {
    "epochs": 2, "batch_size": 6, "token_budget": 48, "lr": 3e-3, "checkpoint_every": 3, "weight_decay": 0.01,
    "max_grad_norm": 0.03, "warmup_ratio": 0.2, "seed": 5,
}  # fmt: skip


class Jitter:
    """A hook that draws from every generator, as methods do that redraw their tickets."""

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.mul_(1 + 1e-4 * (random.random() + np.random.rand() + torch.rand(()).item()))


def noise(model: nn.Module) -> float:
    """A metric whose best is somewhere in the middle of a run."""
    total = sum(float(p.double().sum()) for p in model.parameters() if p.requires_grad)
    return derived_seed(round(total, 9)) % 1000


def train_in_windows(trainer: AcceleratedTrainer, model: nn.Module, cuts: list[int], hooks: list[Any]) -> None:
    """One training in several phases, each from the optimizer state of the one before, and a note after each."""
    total, state = trainer.total_steps(), None
    for first, last in itertools.pairwise([0, *cuts, total]):
        phase = f"from-{first}"
        window = Window("whole", first, total)
        trainer.train(
            model, phase=phase, steps=last - first, window=window, hooks=hooks, optimizer=state, keep_optimizer=True
        )
        state = trainer.optimizer_state(phase)
        trainer.note(phase, {"sum": sum(float(value.double().sum()) for value in state.values())})


def run(spec: dict[str, Any]) -> int:
    """Does a job and returns its exit status: 0, or 75 when a signal has stopped it."""
    zero.PERSISTENT_ELEMENTS = 0  # every parameter of the tiny model is really partitioned
    model = adapted(spec["adapter"], spec.get("dropout", 0.0))
    trainer = AcceleratedTrainer(
        settings=Settings(**{**DEFAULTS, **spec.get("settings", {})}), rows=rows(), run_dir=Path(spec["run_dir"]),
        pad_token_id=0, launch={"kind": spec.get("kind", "single")},
        validate=(lambda model: killing.validated(noise(model))) if spec.get("validate") else None,
    )  # fmt: skip
    if spec.get("kill_rank", 0) == trainer.ranks.rank:
        if spec.get("kill"):
            killing.arm(*spec["kill"])
        if spec.get("terminate"):
            killing.terminate(*spec["terminate"])
    try:
        hooks = [Jitter()] if spec.get("jitter") else []
        if "cuts" in spec:
            train_in_windows(trainer, model, spec["cuts"], hooks)
        else:
            for phase in spec.get("phases", ["train"]):
                trainer.train(model, phase=phase, hooks=hooks)
    except Interrupted:
        return 75
    if trainer.ranks.first:
        model.save_pretrained(Path(spec["run_dir"]) / "adapter")
    return 0


def fork_ranks(spec: dict[str, Any]) -> list[int]:
    """Exit statuses of a job's ranks, minus the signal for a killed one; if one dies the others are killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    count = spec.get("nproc", 1)
    children = {_fork(spec, rank, count, port): rank for rank in range(count)}
    if "kill_after" in spec:  # seconds
        threading.Timer(spec["kill_after"], _kill, [list(children)]).start()
    statuses = [0] * count
    while children:
        child, status = os.wait()
        rank = children.pop(child)
        statuses[rank] = os.waitstatus_to_exitcode(status)
        if statuses[rank] not in (0, 75):
            _kill(list(children))
    return statuses


def _kill(children: list[int]) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _fork(spec: dict[str, Any], rank: int, count: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    if count > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in place.items()}, MASTER_ADDR="127.0.0.1")
    status = 1
    try:
        status = run(spec)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)


def main() -> None:
    specs = json.loads(Path(sys.argv[1]).read_text())
    if "RANK" in os.environ:
        for spec in specs:
            run(spec)
    else:
        print(json.dumps([fork_ranks(spec) for spec in specs]))


if __name__ == "__main__":
    main()
