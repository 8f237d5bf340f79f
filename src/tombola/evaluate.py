"""A finished run's model on another task, from the evaluation's `config.json` to a record of its own.

`eval.py` checks what was typed, writes the folder inside the run's and calls `main`.
"""

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from tombola import before_after
from tombola.before_after import BeforeAfter
from tombola.models import load_host
from tombola.outcome import Outcome, read_config
from tombola.run import attempt, method_of
from tombola.scores import task_scores, tell
from tombola.tasks import load_task
from tombola.training import Settings


def main(folder: Path) -> int:
    """The exit status: 0 recorded, 1 a user's mistake, 75 stopped by a signal with its answers kept."""
    return attempt(lambda console: _evaluate(Path(folder), console))


def _evaluate(folder: Path, console: Console) -> int:
    config = read_config(folder)
    run = folder.parents[1]
    saved = run / method_of(config["method"]).saved_in
    if config["task"]["kind"] == "probe":
        return _forgetting(folder, run, saved, config, console)
    task = load_task(config["task"], role=config["model"]["role"])
    outcome = Outcome.begin(folder, config, task.data_note)
    if task.data_note:
        console.print(f"note: {task.data_note}", style="yellow", highlight=False, soft_wrap=True)
    started = time.perf_counter()
    host = load_host(
        config["model"],
        kind=config["task"]["kind"],
        labels=config["task"]["labels"],
        seed=config["seed"],
        device=before_after.device(),
    )
    model = method_of(config["method"]).load(host, saved)
    settings = Settings(**config["training"], seed=config["seed"])
    scores = task_scores(model, task, host, settings, folder, of=config["evaluated"]["saved"], console=console)
    seconds = time.perf_counter() - started
    outcome.write("ok", {}, scores, {}, saved, host.provenance, seconds)
    tell(console, outcome, scores)
    return 0


def _forgetting(folder: Path, run: Path, saved: Path, config: dict[str, Any], console: Console) -> int:
    probes = BeforeAfter.of(config, config["task"], run)
    outcome = Outcome.begin(folder, config)
    found = probes.before(), probes.after(saved)
    outcome.write(
        "ok",
        {},
        before_after.scores(config["task"]["name"], *found),
        saved=saved,
        evaluation_seconds=found[1]["seconds"],
        forgetting=before_after.protocol(*found),
    )
    tell(console, outcome, [], before_after.lines(*found))
    return 0
