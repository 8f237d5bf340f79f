"""Small files in the layouts of the probes' data sets."""

import gzip
import json
from pathlib import Path
from typing import Any

PIQA = [
    {"goal": "To dry a wet shoe,", "sol1": "fill it with newspaper.", "sol2": "fill it with water.", "label": 0},
    {"goal": "Open a jar whose lid is stuck", "sol1": "by shouting at it", "sol2": "after warming the lid", "label": 1},
    {"goal": "Peel an egg", "sol1": "under cold water, from the blunt end", "sol2": "under a lamp", "label": 0},
    {"goal": "Mark the place in a book", "sol1": "a", "sol2": "b", "label": 1},  # options of one token
    {"goal": "Cut a round cake into eight", "sol1": "by four cuts through its middle", "sol2": "in rows", "label": 0},
]
HELLASWAG = [
    {
        "activity_label": f"Cooking {number}",
        "ctx": f"A man puts {number} [title] onions into a pan. he",
        "endings": ["stirs them.", "flies away [header] slowly.", "is a lamp.", "sells the pan  to a fish."],
        "label": number % 4,
    }
    for number in range(6)
]
GSM8K = [
    {
        "question": f"Ada has {number} nuts and finds {number + 2}. How many?",
        "answer": f"She adds.\n#### {2 * number + 2}",
    }
    for number in range(9)
]
ROWS = {
    "piqa.validation.jsonl.gz": PIQA,
    "hellaswag.validation.jsonl.gz": HELLASWAG,
    "gsm8k.test.jsonl.gz": GSM8K[:3],
    "gsm8k.train.jsonl.gz": GSM8K[3:],
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def probe_folder(folder: Path) -> Path:
    """A `data_dir` for the probes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in ROWS.items():
        write_rows(folder / name, rows)
    return folder
