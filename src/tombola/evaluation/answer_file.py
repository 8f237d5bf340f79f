"""Answers on disk as they come, so that a killed evaluation goes on where it stopped."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tombola.evaluation.fingerprint import digest


class AnswerFile:
    """JSON lines: first `{"of": KEY}`, then `{"index": i, "answer": a}` for each example.

    `of` says whose answers these are, such as the adapter's checksum: with other weights or other questions the file is
    begun anew. Each rank writes a file of its own beside the first rank's. A torn last line counts as not written.
    """

    def __init__(self, path: Path, of: str, *, rank: int = 0) -> None:
        self.path, self.of, self.rank = path, of, rank
        self._own = path if rank == 0 else path.with_suffix(f".rank{rank}{path.suffix}")
        self._key = ""

    def begin(self, questions: str) -> dict[int, Any]:
        """Answers already there, of any rank, to exactly these `questions` (a fingerprint); opens the file for more."""
        self._key = digest(self.of, questions)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        answers: dict[int, Any] = {}
        siblings = self.path.parent.glob(f"{self.path.stem}.rank*{self.path.suffix}")
        for path in [self.path, *sorted(siblings)]:
            answers |= self._answers_in(path)
        self._make_own_whole()
        return answers

    def append(self, answers: Mapping[int, Any]) -> None:
        """Write the answers of one batch, and return when they are on disk."""
        lines = [json.dumps({"index": index, "answer": answer}) + "\n" for index, answer in answers.items()]
        with self._own.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def _answers_in(self, path: Path) -> dict[int, Any]:
        whole = _whole_lines(path)
        if not whole or json.loads(whole[0]) != {"of": self._key}:
            return {}
        lines = [json.loads(line) for line in whole[1:]]
        return {line["index"]: line["answer"] for line in lines}

    def _make_own_whole(self) -> None:
        """Cut a torn tail off, or begin anew where the answers are to something else."""
        whole = _whole_lines(self._own)
        if not whole or json.loads(whole[0]) != {"of": self._key}:
            whole = [json.dumps({"of": self._key}).encode()]
        part = self._own.with_name(f"{self._own.name}.part")
        part.write_bytes(b"".join(line + b"\n" for line in whole))
        part.replace(self._own)


def _whole_lines(path: Path) -> list[bytes]:
    """The lines that end in a newline and parse: what a kill tore is not among them."""
    content = path.read_bytes() if path.is_file() else b""
    lines = []
    for line in content.split(b"\n")[:-1]:
        try:
            json.loads(line)
        except ValueError:
            break
        lines.append(line)
    return lines
