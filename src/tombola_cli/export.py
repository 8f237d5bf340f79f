"""`scripts/export.py`: give a run's adapter away in a form that needs less than this package to load."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola_cli.config.nearest import did_you_mean
from tombola_cli.help import print_help
from tombola_cli.past_run import find_run, run_config, runs_folder, unfinished

HELP = """\
Give a trained adapter away in a form that needs less than this package to load.

  python scripts/export.py run=ID format=native|shira|lora|merged [out=DIR] [runs.dir=DIR]

  run=ID          a finished run: the name of its folder, or as much of the beginning as no other run has
  format=native   the PEFT adapter as it was saved: exact and smallest; adapters of our own kinds need
                  `import tombola` before PEFT loads them
  format=shira    a stock SHiRA adapter of PEFT, for sparse adapters (bola, sparse_adapter, rigsa, sift, ...): loads
                  without this package; larger, for every entry has its place, and every layer as many as the fullest
  format=lora     a stock LoRA adapter of PEFT, for masked LoRA (partial_lora, targeted_lora): loads without this
                  package; larger, for what was not kept is there as zeros
  format=merged   a plain transformers checkpoint with tokenizer, for any adapter: loads without PEFT; as large as
                  the base model
  out=DIR         where to write; runs/ID/exported/FORMAT if not given, which is written anew each time
  runs.dir=DIR    where the runs are, as for train.py

Example
  python train.py method=bola model=minilm task=textual_digits training=demo
  python scripts/export.py run=bola-minilm format=merged out=digits-reader
"""
FIELDS = ("run", "format", "out", "runs.dir")
FORMATS = ("native", "shira", "lora", "merged")


class ExportError(ValueError):
    """What was asked for cannot be exported; the message says why and what to do."""


@dataclass(frozen=True)
class Request:
    """What was typed; `out` is None for the run's own folder."""

    run: str
    form: str
    runs: Path
    out: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 written, 1 with one line on stderr that says what is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        print_help(HELP.rstrip())
        return 0
    try:
        out = _export(read_request(words))
    except ValueError as error:  # ExportError and the rooms' own: cause and remedy inside
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {out}")
    return 0


def read_request(words: Sequence[str]) -> Request:
    """The command line's words. Raises ExportError for a field or format that is unknown or missing."""
    given: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or name not in FIELDS:
            raise ExportError(f"{word}: there is no such field; {did_you_mean(name, FIELDS)} See --help")
        given[name] = value
    for name in ("run", "format"):
        if not given.get(name):
            raise ExportError(f"{name}= is missing: python scripts/export.py run=ID format={'|'.join(FORMATS)}")
    if given["format"] not in FORMATS:
        raise ExportError(
            f"format={given['format']}: there is no such format; {did_you_mean(given['format'], FORMATS)}"
        )
    runs = runs_folder(given.get("runs.dir"))
    return Request(given["run"], given["format"], runs, Path(given["out"]) if given.get("out") else None)


def _export(request: Request) -> Path:
    folder = find_run(request.run, request.runs)
    config = run_config(folder)
    adapter = _adapter(folder, config)
    own = folder / "exported" / request.form
    out = request.out or own
    if out != own and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"out={out} exists: name another folder, or remove it first")
    # PEFT 0.21 asks transformers 5.23 for a name that it will drop; nothing that a user could do about it.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    from tombola.exporting import export  # torch from here on

    if out == own:
        shutil.rmtree(own, ignore_errors=True)
    export(adapter, request.form, out, config)
    return out


def _adapter(folder: Path, config: dict[str, Any]) -> Path:
    """The run's PEFT adapter. Raises ExportError for a run that has none, PastRunError for one that has none yet."""
    method = config["method"]["name"]
    if (folder / "checkpoint" / "config.json").exists():
        raise ExportError(
            f"{method} has no adapter to export: {folder / 'checkpoint'} is a plain transformers checkpoint already"
        )
    adapter = folder / "adapter"
    if not adapter.exists():
        raise unfinished(folder, config)
    if not (adapter / "adapter_config.json").exists():
        raise ExportError(
            f"{method} has no adapter to export: {adapter} holds the base model's trained head, if it has one, alone"
        )
    return adapter
