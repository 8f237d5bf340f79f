"""`python train.py --help`: the choices as `conf/` has them, the fields one changes most, and three worked examples."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

from tombola_cli.config.choices import choices, purpose

WIDTH = 110
SHOWN = ("method", "model", "task", "training", "recipe", "forgetting", "launch", "log")

HEAD = """\
tombola trains one model on one task by one method, scores it, and writes a record that a table can cite.

  python train.py [GROUP=CHOICE ...] [FIELD=VALUE ...]     one run
  python train.py -m FIELD=A,B ...                         a sweep: one run for each value
"""

FIELDS = """\
Fields one changes most (every field of --cfg job can be set the same way)
  seed=0                      of everything random
  training.lr=1e-3            peak learning rate; training.epochs, training.batch_size (rows of one optimizer step)
  training.token_budget=4096  padded tokens in memory at once: lower it when memory runs out, results stay the same
  method.config.k=8           BoLA's candidates per layer; method.config.r is LoRA's rank
  method.config.density=0.01  share of each weight that a sparse method trains; method.kr for sparse adapters
  task.data_dir=DIR           read the task's files from a local folder
  task.test_sets=[ARC-e,OBQA] some of the test sets of math or commonsense; task.num_beams=1 decodes greedily
  forgetting=probes           lm-eval's piqa, hellaswag, gsm8k before and after training; forgetting.data_dir=DIR for a
                              local copy of their rows, forgetting.limit.gsm8k=100 for the first rows only
  model.path=DIR              read the model from a local folder
  launch.nproc=2              processes, with launch=ddp, zero2 or zero3
  evaluation.generate=vllm    texts by vLLM on a GPU, greedy, from merged weights; evaluation.vllm_python=PYTHON
  plan=true                   print parameters, memory and steps, without weights or data, and stop
  force=true                  run again although this very run is recorded as finished
  recipe=null                 leave out the paper's hyper-parameters that conf/recipe has for this combination

Options
  --help, -h                  this text
  --cfg job                   print the composed config and stop
  --multirun, -m              one process for each combination of the values given with commas
"""

EXAMPLES = """\
Three worked examples
  1. Is everything in place? BoLA on a small real model and real data, a few steps, in seconds:
       python train.py training=smoke
  2. What would the paper's run cost? Its recipe is picked up by itself; nothing is downloaded:
       python train.py method=bola model=llama3_8b task=math plan=true
  3. LoRA against BoLA, three seeds each. Started again, it runs only what is missing:
       python train.py -m method=lora,bola seed=0,1,2

A run's id comes from all that decides its result. runs/<id>/ keeps its work, results/records/<id>.json its scores.
python eval.py --help             asks a finished run's model any task
python scripts/export.py --help   gives a run's adapter away: PEFT's own, stock SHiRA, or a merged checkpoint
"""


def print_help(text: str) -> None:
    """Prints it; a reader that has seen enough, as `head` has, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end


def help_text(conf_dir: Path) -> str:
    """The whole text; each choice with the first comment line of its YAML where there is room."""
    known = choices(conf_dir)
    # what several recipes share lies in folders without a combination's name
    known["recipe"] = [name for name in known["recipe"] if "-" in name.partition("/")[0]]
    parts = [HEAD, "Groups and their choices (the first comment of each YAML says more)"]
    parts += [_group(group, known[group], conf_dir) for group in SHOWN]
    return "\n".join([*parts, "", FIELDS, EXAMPLES]).rstrip()


def _group(group: str, names: list[str], conf_dir: Path) -> str:
    if group == "method":
        return "\n".join([f"  {group}", *(_explained(group, name, conf_dir) for name in names)])
    return textwrap.fill(
        " ".join(names), WIDTH, initial_indent=f"  {group:<10}", subsequent_indent=" " * 12, break_on_hyphens=False
    )


def _explained(group: str, name: str, conf_dir: Path) -> str:
    return f"    {name:<16}{textwrap.shorten(purpose(conf_dir, group, name), WIDTH - 20, placeholder=' ...')}"
