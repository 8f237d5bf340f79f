"""`log.jsonl`: one JSON line an optimizer step, and one a validation, always written, whatever the tracker."""

import json
import math
from pathlib import Path
from typing import Any


class Journal:
    """Appends lines and, on resume, forgets what the checkpoint does not know of."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line. NaN and infinity, which JSON has no word for, become null."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_text(line) + "\n")

    def append_new(self, line: dict[str, Any]) -> bool:
        """Adds a line unless the log has that very line already; whether it did."""
        if self.path.exists() and _text(line) in self.path.read_text(encoding="utf-8").splitlines():
            return False
        self.append(line)
        return True

    def rewind(self, phase: str, step: int) -> None:
        """Drops a torn line, and the phase's after `step` steps; the validation at that step is made again."""
        if not self.path.exists():
            return
        kept = [text for text in self.path.read_text(encoding="utf-8").splitlines() if _stays(text, phase, step)]
        replacement = self.path.with_suffix(".partial")
        replacement.write_text("".join(f"{text}\n" for text in kept), encoding="utf-8")
        replacement.replace(self.path)


def _text(line: dict[str, Any]) -> str:
    return json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()})


def _stays(text: str, phase: str, step: int) -> bool:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return False
    if line.get("phase") != phase:
        return True
    return line["step"] < step or (line["step"] == step and "validation" not in line)
