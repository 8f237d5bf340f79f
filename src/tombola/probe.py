"""The process in which lm-eval asks one model the probes: `python -m tombola.probe FOLDER`; `before_after` starts it.

FOLDER/job.json says which model; answers go to FOLDER as they come, then FOLDER/result.json, whole or not there.
"""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tombola.before_after import JOB, RESULT
from tombola.evaluation import evaluation_progress
from tombola.forgetting import ask_probes, lm_eval_version
from tombola.models import load_host
from tombola.run import attempt, method_of, untrained
from tombola.tasks import Probes, load_task
from tombola_cli.parent import die_with_parent


def main(place: Path) -> int:
    """The exit status: 0 with a result, 1 after a line that says what is wrong."""
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what was answered is on disk
    job = json.loads((place / JOB).read_text(encoding="utf-8"))
    return attempt(lambda console: _ask(place, job, console))


def _ask(place: Path, job: dict[str, Any], console: Console) -> int:
    config, started = job["config"], time.perf_counter()
    probes: Probes = load_task(job["probes"], role=config["model"]["role"])  # type: ignore[assignment]
    task = config["task"]
    host = load_host(
        config["model"], kind=task["kind"], labels=task["labels"], seed=config["seed"], device=job["device"]
    )
    method = method_of(config["method"])
    net = method.load(host, Path(job["saved"])) if job["saved"] else untrained(method, host)
    when = "after" if job["saved"] else "before"
    with evaluation_progress(console) as progress:
        found = ask_probes(
            net,
            host.processor,
            probes,
            place,
            of=job["of"],
            begin=lambda probe, n: _bar(progress, f"{probe} {when}", n),
        )
    result = {
        "lm_eval": lm_eval_version(),
        "chat_template": probes.chat_template,
        "batch_size": probes.batch_size,
        "probes": found,
        "seconds": round(time.perf_counter() - started, 3),
    }
    part = place / f"{RESULT}.part"
    part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    part.replace(place / RESULT)
    return 0


def _bar(progress: Progress, label: str, total: int) -> Any:
    bar = progress.add_task(label, total=total)
    return lambda done: progress.advance(bar, done)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
