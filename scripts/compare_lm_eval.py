"""lm-eval's own command line on the same model and rows as our probes, and what both answered, row for row.

    python scripts/compare_lm_eval.py run=ID task.data_dir=DIR [task.limit.gsm8k=20 ...]     as eval.py takes them

`run` is one of method=base: lm-eval's command line cannot load our adapters. Writes results/forgetting/MODEL.json and
.md. What lm-eval logged is kept in runs/lm_eval, so that the comparison can be made again in seconds.

Ends with 0 if every row was scored alike, 1 if not, 2 after a line on what is wrong.
"""

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))  # works before the package is installed
if find_spec("lm_eval") is None:
    sys.exit('error: lm-eval is not installed; pip install "tombola[eval]"')

from rich.console import Console  # noqa: E402

from tombola.before_after import BeforeAfter, ProbesFailed  # noqa: E402
from tombola.forgetting import compared, write_task_files  # noqa: E402
from tombola.models import load_host  # noqa: E402
from tombola.tasks import DataError, Probes, load_task  # noqa: E402
from tombola_cli.config.compose import ConfigError  # noqa: E402
from tombola_cli.evaluate import EvaluationError, evaluation_config, read_request  # noqa: E402
from tombola_cli.past_run import PastRunError, find_run, run_config  # noqa: E402
from tombola_cli.records import RecordError, SourceError, gather  # noqa: E402

OUT = REPOSITORY / "results" / "forgetting"


def main(words: list[str]) -> int:
    """The exit status."""
    try:
        return compare(words)
    except ConfigError as error:
        problems = error.problems
    except (EvaluationError, PastRunError, RecordError, SourceError, DataError, ProbesFailed) as error:
        problems = [str(error)]
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    return 2


def compare(words: list[str]) -> int:
    """0 if every row was scored alike, else 1."""
    request = read_request(["task=probes/forgetting", *words])
    folder = find_run(request.run, request.runs)
    method = run_config(folder)["method"]["name"]
    if method != "base":
        raise EvaluationError(f"run={request.run} is of method={method}; expected one of method=base")
    config = evaluation_config(request, folder)
    asked = BeforeAfter.of(config, config["task"], folder)
    asked.before()
    probes: Probes = load_task(asked.probes, role="decoder")  # type: ignore[assignment]
    work = request.runs / "lm_eval" / asked.base_place().name
    ask_lm_eval(config, probes, work)
    found = {probe: compared(ours(asked.base_place(), probe), theirs(work, probe)) for probe in probes.probes}
    write(config, probes, found, ["scripts/compare_lm_eval.py", *words])
    return int(any(score["rows_scored_otherwise"] for one in found.values() for score in one["metrics"].values()))


def ask_lm_eval(config: dict[str, Any], probes: Probes, work: Path) -> None:
    """Its command line, for each probe that it has not logged yet."""
    with tempfile.TemporaryDirectory() as scratch:
        tasks, model = Path(scratch) / "tasks", Path(scratch) / "model"
        for probe in probes.probes:
            if list((work / probe).rglob("samples_*.jsonl")):
                continue
            if not model.exists():
                write_task_files(probes, tasks)
                host = load_host(config["model"], kind="probe", labels=0, seed=config["seed"])
                host.net.save_pretrained(model)
                host.processor.save_pretrained(model)
                del host
            command = lm_eval_words(probes, probe, str(model), str(tasks), str(work / probe))
            subprocess.run([sys.executable, "-m", *command], check=True)


def lm_eval_words(probes: Probes, probe: str, model: str, tasks: str, out: str) -> list[str]:
    """What one would type."""
    limit = ["--limit", str(probes.limit[probe])] if probes.limit.get(probe) else []
    chat = ["--apply_chat_template"] if probes.chat_template else []
    words = ["lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model}", "--include_path", tasks]
    words += ["--tasks", probe, *limit, *chat, "--batch_size", str(probes.batch_size), "--device", "cpu"]
    return [*words, "--log_samples", "--output_path", out]


def ours(place: Path, probe: str) -> list[dict[str, Any]]:
    """The rows that our evaluation kept."""
    return lines(place / "rows" / f"{probe}.jsonl")


def theirs(work: Path, probe: str) -> list[dict[str, Any]]:
    """The newest samples that lm-eval logged."""
    return lines(max((work / probe).rglob("samples_*.jsonl")))


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(config: dict[str, Any], probes: Probes, found: dict[str, Any], words: list[str]) -> None:
    """The comparison as JSON and as Markdown."""
    name = config["model"]["name"]
    sources = {"weights": config["sources"]["weights"]}
    provenance = gather(root=REPOSITORY, argv=words, model=sources, data={})
    command = " ".join(lm_eval_words(probes, "PROBE", "MODEL", "TASKS", "OUT"))
    how = {"shots": probes.shots, "limit": probes.limit, "batch_size": probes.batch_size}
    content = {"model": name, "lm_eval": command, **how, "probes": found, "provenance": provenance}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (OUT / f"{name}.md").write_text(markdown(name, probes, found, provenance["command"], command), encoding="utf-8")
    Console().print(f"written: {(OUT / name).relative_to(REPOSITORY)}.json, .md", highlight=False)


def markdown(name: str, probes: Probes, found: dict[str, Any], command: str, lm_eval: str) -> str:
    """A table with a row for each probe and metric."""
    columns = ["probe", "shots", "rows", "metric", "ours", "lm-eval", "rows scored otherwise", "equal answers"]
    columns.append("largest difference")
    rows = [columns, ["---"] * len(columns)]
    for probe, one in found.items():
        answers = [f"{one['equal']:,} of {one['answers']:,}", str(one.get("largest_difference", ""))]
        for metric, score in one["metrics"].items():
            scores = [f"{score['ours']:.4f}", f"{score['lm_eval']:.4f}", str(score["rows_scored_otherwise"])]
            rows.append([probe, str(probes.shots.get(probe, 0)), f"{one['n']:,}", metric, *scores, *answers])
    head = [
        "<!-- Written by scripts/compare_lm_eval.py: do not edit. -->\n",
        f"# {name}: our probes and lm-eval's own command line\n",
        "The base model on the same rows. Answers are likelihoods of options (nats) or generated texts.\n",
        f"    {command}\n    {lm_eval}\n",
    ]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
