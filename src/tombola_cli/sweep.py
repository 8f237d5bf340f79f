"""`python train.py -m seed=0,1,2 training.lr=1e-3,5e-4`: all jobs checked first, then one process a job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tombola_cli.config.choices import choices
from tombola_cli.config.compose import ConfigError
from tombola_cli.config.overrides import expand
from tombola_cli.jobs import Job, examined, job, start
from tombola_cli.parent import EX_TEMPFAIL, forwarding
from tombola_cli.run_folder import Busy


def prepare(words: Sequence[str], conf_dir: Path) -> list[Job]:
    """The jobs of a sweep, each one checked.

    Raises:
        ConfigError: every problem of every job, each said once.
    """
    composed = []
    problems: dict[str, None] = {}
    for job_words in expand(words, choices(conf_dir)):
        config, faults = examined(job_words, conf_dir)
        composed.append((job_words, config))
        problems.update(dict.fromkeys(faults))
    if problems:
        raise ConfigError(list(problems))
    return [job(job_words, config) for job_words, config in composed]


def sweep(jobs: Sequence[Job]) -> int:
    """0 if every job has an ok record in the end, 1 if one failed, `EX_TEMPFAIL` if a signal stopped the sweep."""
    failed: list[Job] = []
    with forwarding(lambda: []) as signals:
        for number, one in enumerate(jobs, start=1):
            code = _run(one, f"[{number}/{len(jobs)}] {one.id}")
            if code not in (0, EX_TEMPFAIL):
                failed.append(one)
            if signals or code == EX_TEMPFAIL:
                print(f"stopped after {number} of {len(jobs)} jobs; the same command goes on from here", flush=True)
                return EX_TEMPFAIL
    if failed:
        print(f"{len(failed)} of {len(jobs)} jobs failed; the same command runs only what is missing:")
        for one in failed:
            print(f"  {shlex.join(['python', 'train.py', *one.words])}   log: {one.log}")
    return 1 if failed else 0


def _run(one: Job, head: str) -> int:
    if one.finished():
        print(f"{head}: finished before, skipped", flush=True)
        return 0
    print(f"{head}: {' '.join(one.words)}", flush=True)
    try:
        code = start(one, log=one.log)
    except Busy as error:
        print(f"error: {error}", flush=True)
        code = 1
    outcome = {0: "ok", EX_TEMPFAIL: "interrupted"}.get(code, f"failed (exit status {code})")
    print(f"{head}: {outcome}", flush=True)
    return code
