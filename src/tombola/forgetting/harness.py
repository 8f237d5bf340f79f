"""lm-eval asks a network the probes and scores its answers; what it says of each row is kept."""

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from torch import nn

from tombola.evaluation import AnswerFile
from tombola.evaluation.fingerprint import digest
from tombola.evaluation.inference import evaluating
from tombola.forgetting.language_model import KeptAnswers
from tombola.forgetting.task_files import write_task_files
from tombola.tasks import DataError, Probes

# lm-eval's "metric,filter", and what our records call it
METRICS = {
    "acc,none": "acc",
    "acc_norm,none": "acc_norm",
    "exact_match,strict-match": "exact_match_strict",
    "exact_match,flexible-extract": "exact_match_flexible",
}
# Those of lm-eval's command line, so that both draw the same shots.
SEEDS = {"random_seed": 0, "numpy_random_seed": 1234, "torch_random_seed": 1234, "fewshot_random_seed": 1234}
Advance = Callable[[int], object]


def ask_probes(
    net: nn.Module,
    tokenizer: Any,
    probes: Probes,
    folder: Path,
    *,
    of: str,
    begin: Callable[[str, int], Advance] | None = None,
) -> dict[str, dict[str, Any]]:
    """For each probe the `version` of lm-eval's task, `shots`, `n`, `rows` (a digest of them) and `metrics` in [0, 1].

    `cut` requests were longer than the model's context, so that lm-eval left out their beginning.
    `of` says whose answers these are: `folder`/answers keeps them as they come, and a second call asks for the rest.
    `folder`/rows has a line for each row: what was answered, and what it scored. `begin` is told of each probe and gets
    the number of requests; what it returns is told of those that are done.
    """
    if probes.chat_template and not getattr(tokenizer, "chat_template", None):
        raise DataError(f"{probes.name}: chat_template=true, and the model's tokenizer has none; expected false")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    found = {}
    with tempfile.TemporaryDirectory() as scratch, evaluating(net):
        write_task_files(probes, Path(scratch))
        tasks = TaskManager(include_path=scratch, include_defaults=False)
        for probe in probes.probes:
            model = KeptAnswers(
                net,
                tokenizer,
                batch_size=probes.batch_size,
                answers=AnswerFile(folder / "answers" / f"{probe}.jsonl", of),
                begin=partial(begin, probe) if begin else None,
            )
            found[probe] = _asked(model, probes, probe, tasks, folder)
    return found


def lm_eval_version() -> str:
    """The installed one."""
    return version("lm-eval")


def _asked(model: KeptAnswers, probes: Probes, probe: str, tasks: TaskManager, folder: Path) -> dict[str, Any]:
    try:
        said = simple_evaluate(
            model,
            tasks=[probe],
            task_manager=tasks,
            limit=probes.limit.get(probe),
            apply_chat_template=probes.chat_template,
            fewshot_as_multiturn=probes.chat_template,  # lm-eval's own default
            bootstrap_iters=0,
            **SEEDS,
        )
    except (ConnectionError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"{probes.name}: {probe}'s rows cannot be fetched ({reason}); give a local copy, data_dir=DIR"
        ) from error
    rows = _by_row(said["samples"][probe])
    _write_lines(folder / "rows" / f"{probe}.jsonl", rows)
    results = said["results"][probe]
    return {
        "version": said["versions"][probe],
        "shots": said["n-shot"][probe],
        "n": len(rows),
        "cut": model.cut,
        "rows": digest([row["of"] for row in rows]),
        "metrics": {ours: float(results[theirs]) for theirs, ours in METRICS.items() if theirs in results},
    }


def _by_row(samples: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """lm-eval's lines, one a row and filter, as one a row; `of` is lm-eval's hash of the row."""
    rows: dict[int, dict[str, Any]] = {}
    for sample in samples:
        said = [one[0] for one in sample["resps"]]
        row = rows.setdefault(
            sample["doc_id"],
            {"row": sample["doc_id"], "of": sample["doc_hash"], "target": sample["target"], "said": said},
        )
        if sample["filter"] != "none":
            row[f"{sample['filter']} reads"] = sample["filtered_resps"]
        row |= {METRICS[f"{metric},{sample['filter']}"]: sample[metric] for metric in sample["metrics"]}
    return [rows[number] for number in sorted(rows)]


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)
