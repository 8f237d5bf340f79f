"""`make demo`: the main job on the embedded default, then its table and where its pictures are.

Base, LoRA and BoLA on a real pretrained MiniLM and real handwritten digits, at equal numbers of adapter parameters.
Its records stay in runs/demo, so that it really runs in a fresh clone; started again, it runs only what is missing.
"""

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS, RECORDS, TABLE = "runs/demo", "runs/demo/records", "minilm_textual_digits"
SWEEP = ["-m", "method=base,lora,bola", "model=minilm", "task=textual_digits", "training=demo"]
FOLDERS = [f"runs.dir={RUNS}", f"records.dir={RECORDS}"]


def main() -> int:
    """The exit status of the first step that failed, or 0."""
    console = Console()
    words = ["train.py", *SWEEP, *FOLDERS]
    console.print(f"python {' '.join(words)}", style="bold", highlight=False, soft_wrap=True)
    status = subprocess.run([sys.executable, *words], cwd=REPOSITORY).returncode
    if status:
        return status
    table = ["scripts/tables.py", "--records", RECORDS, "--name", TABLE, "--out", "-"]
    status = subprocess.run([sys.executable, *table], cwd=REPOSITORY).returncode
    for method, picture in sorted(pictures(REPOSITORY / RUNS, REPOSITORY / RECORDS).items()):
        console.print(f"where {method} moved the model: {picture}", highlight=False, soft_wrap=True)
    return status


def pictures(runs: Path, records: Path) -> dict[str, Path]:
    """The picture of each recorded run, by the method's name; paths as one would open them from the repository."""
    found = {}
    for path in sorted(records.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        picture = runs / record["id"] / "ticket.png"
        if picture.exists():
            found[record["config"]["method"]["name"]] = picture.relative_to(REPOSITORY)
    return found


if __name__ == "__main__":
    sys.exit(main())
