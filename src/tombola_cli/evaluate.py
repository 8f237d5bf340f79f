"""`eval.py`: a finished run's model asked any task, with a record of its own."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola_cli.config.choices import CONF
from tombola_cli.config.nearest import did_you_mean
from tombola_cli.help import print_help

HELP = """\
Ask a finished run's model any task. The run and its record stay as they are; the answers make a record of their own.

  python eval.py run=ID task=TASK [FIELD=VALUE ...]

  run=ID             a finished run: the name of its folder, or as much of the beginning as no other run has
  task=TASK          a task of `python train.py --help` that a model of this kind answers; a classification head answers
                     only tasks with as many classes as it was trained for
  task.FIELD=VALUE   a field of the task, such as task.data_dir=DIR for a local copy of its data; the run's own task
                     keeps the fields that the run had
  training.max_eval_rows=N        of each test set at most so many rows, evenly spaced; every row if not given
  training.eval_token_budget=N    padded tokens of one batch: lower it when memory runs out
  training.max_length=N           tokens of a row for a head; longer ones are cut
  force=true         ask the trained model again although this very evaluation is recorded
  runs.dir=DIR       where the runs are, as for train.py
  evaluations.dir=DIR             where the record goes; results/evaluations if not given

What training unlearned: task=probes/forgetting
  lm-eval asks its piqa, hellaswag and gsm8k of the base model and of the trained one. The record has both scores and
  their difference. The base is asked once for all runs of one model: runs/before keeps its answers.
  task.probes=[piqa]              some of them
  task.limit.gsm8k=100            the first rows only, as lm-eval's --limit (training.max_eval_rows: of each probe)
  task.shots.gsm8k=8              solved examples before each question
  task.chat_template=true         in the model's turns
  task.batch_size=4               rows at once

Three worked examples
  1. A run trained on a sample, scored on every row of its own task:
       python train.py method=bola model=minilm task=textual_digits training=demo
       python eval.py run=bola-minilm task=textual_digits
  2. A decoder trained on digits, asked GSM8K and the other math sets, 50 rows of each:
       python eval.py run=lora-smollm2 task=math task.data_dir=$TOMBOLA_DATA/llm_adapters training.max_eval_rows=50
  3. What it unlearned, on all of PIQA and 500 rows of HellaSwag:
       python eval.py run=lora-smollm2 task=probes/forgetting task.data_dir=$TOMBOLA_DATA/lm_eval \\
         task.probes=[piqa,hellaswag] task.limit.hellaswag=500
Killed and started again, each goes on after the last answer that it has.
"""
OWN = ("run", "force", "runs.dir", "evaluations.dir")
TRAINING = ("training.max_eval_rows", "training.eval_token_budget", "training.max_length")
FIELDS = (*OWN, "task", *TRAINING)
EVALUATIONS = "results/evaluations"
USAGE = "python eval.py run=ID task=TASK"


class EvaluationError(ValueError):
    """What was asked for cannot be evaluated; the message says why and what to do."""


@dataclass(frozen=True)
class Request:
    """What was typed; `words` are those that change the run's config."""

    run: str
    runs: Path
    evaluations: str
    force: bool
    words: tuple[str, ...]


def main(argv: Sequence[str], conf_dir: Path = CONF) -> int:
    """The exit status: 0 recorded (or recorded before), 1 a mistake, 75 stopped by a signal with its answers kept."""
    words = list(argv)
    if {"-h", "--help"} & set(words):
        print_help(HELP.rstrip())
        return 0
    # 0.1 s, which --help does without
    from tombola_cli.config.compose import ConfigError
    from tombola_cli.past_run import PastRunError
    from tombola_cli.records import RecordError, SourceError
    from tombola_cli.run_folder import Busy

    try:
        return _evaluate(read_request(words, conf_dir), words, conf_dir)
    except ConfigError as error:
        problems = error.problems
    except (EvaluationError, PastRunError, Busy, RecordError, SourceError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on after the last answer", file=sys.stderr)
        return 128 + signal.SIGINT
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    return 1


def read_request(words: Sequence[str], conf_dir: Path = CONF) -> Request:
    """The command line's words. Raises EvaluationError for a field that is unknown or missing."""
    from tombola_cli.past_run import runs_folder

    own: dict[str, str] = {}
    changes: list[str] = []
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not (name in FIELDS or name.startswith("task.")):
            raise EvaluationError(f"{word}: there is no such field; {did_you_mean(name, FIELDS)} See --help")
        if name in OWN:
            own[name] = value
        else:
            changes.append(word)
    for name, there in (("run", own.get("run")), ("task", any(word.startswith("task=") for word in changes))):
        if not there:
            raise EvaluationError(f"{name}= is missing: {USAGE}")
    force = own.get("force", "false").lower()
    if force not in ("true", "false"):
        raise EvaluationError(f"force={own['force']}: expected true or false")
    runs = runs_folder(own.get("runs.dir"), conf_dir)
    return Request(own["run"], runs, own.get("evaluations.dir") or EVALUATIONS, force == "true", tuple(changes))


def _evaluate(request: Request, words: Sequence[str], conf_dir: Path) -> int:
    from tombola_cli.main import tell
    from tombola_cli.past_run import find_run
    from tombola_cli.records import data_source, evaluation_id, find_ok
    from tombola_cli.run_folder import FINISHED, locked, write_config

    folder = find_run(request.run, request.runs)
    config = evaluation_config(request, folder, conf_dir)
    sources = {**config.pop("sources"), "data": data_source(config["task"])}
    identity = evaluation_id(config, sources)
    record = None if request.force else find_ok(request.evaluations, identity)
    if record is not None:
        tell(record, request.evaluations)
        return 0
    place = folder / "evaluations" / identity.removeprefix(f"{folder.name}-on-")
    with locked(place):
        if request.force and (place / FINISHED).exists():  # not one that was cut off, which goes on
            for kept in (place / "answers", folder / "forgetting"):
                shutil.rmtree(kept, ignore_errors=True)
            (place / FINISHED).unlink()
        write_config(place, run_id=identity, config=config, sources=sources, command=["eval.py", *words])
        print(f"evaluation {identity} in {place}", flush=True)
        from tombola.evaluate import main as evaluate  # torch from here on

        return evaluate(place)


def evaluation_config(request: Request, folder: Path, conf_dir: Path = CONF) -> dict[str, Any]:
    """The run's config with the task in it that is asked.

    Raises:
        PastRunError: the run has not finished.
        ConfigError: a line for each reason why its model cannot be asked that.
    """
    from tombola_cli.config.allowed import target_faults
    from tombola_cli.config.check import range_faults, role_faults
    from tombola_cli.config.compose import ConfigError, examine
    from tombola_cli.config.machine import lacking_to_evaluate
    from tombola_cli.past_run import checksum, run_config, unfinished
    from tombola_cli.run_folder import FINISHED

    run = run_config(folder)
    if not (folder / FINISHED).exists():
        raise unfinished(folder, run)
    composed, problems = examine(["recipe=null", *request.words], conf_dir)
    if problems:
        raise ConfigError(problems)
    typed = [word.partition("=")[0].split(".") for word in request.words]
    task = composed["task"]
    if task["name"] == run["task"]["name"]:
        task = {**task, **run["task"], **{path[1]: task[path[1]] for path in typed if path[0] == "task" and path[1:]}}
    how = {path[1]: composed["training"][path[1]] for path in typed if path[0] == "training"}
    saved = next(path for name in ("checkpoint", "adapter") if (path := folder / name).is_dir())
    config = {
        **{name: value for name, value in run.items() if name not in ("id", "command")},
        "task": task,
        "training": {**run["training"], "max_eval_rows": None, **how},
        "forgetting": {"name": "none"},
        "force": request.force,
        "records": {"dir": request.evaluations},
        "evaluated": {"run": folder.name, "saved": checksum(saved)},
    }
    misfit = role_faults(config) or _head_faults(run, task)
    problems = [*target_faults(config), *range_faults(config), *misfit] or lacking_to_evaluate(config)
    if problems:
        raise ConfigError(problems)
    return config


def _head_faults(run: dict[str, Any], task: dict[str, Any]) -> list[str]:
    """A head answers tasks of its own kind and number of classes."""
    had = run["task"]
    if run["model"]["role"] == "decoder" or task["kind"] == "probe":
        return []
    if (had["kind"], had["labels"]) == (task["kind"], task["labels"]):
        return []
    head, needed = (f"{one['labels']} outputs to {one['kind']}" for one in (had, task))
    return [f"task={task['name']}: the run's head was trained on {had['name']} and has {head}; the task needs {needed}"]
