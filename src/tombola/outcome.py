"""What a run leaves to the world: its record, with costs and provenance."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.training import History
from tombola_cli.past_run import checksum as checksum
from tombola_cli.records import Record, Score, gather, portable, write_record
from tombola_cli.run_folder import FINISHED as FINISHED

STARTED = "started.json"
REPOSITORY = Path(__file__).resolve().parents[2]


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config that train.py wrote, with the run's `id`, `sources` and `command`."""
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def told(saved: Path) -> dict[str, Any]:
    """What a method says of its ticket in a `ticket.json` beside the weights; empty where it wrote none."""
    path = saved / "ticket.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def sibling_ticket(folder: Path) -> Path | None:
    """The maps of a finished LoRA run of the same model, task and seed, to be drawn beside this run's; the newest."""
    config = read_config(folder)
    if config["method"]["name"] == "lora":
        return None
    stem = f"lora-{config['id'].removeprefix(config['method']['name'] + '-').rpartition('-')[0]}-"
    found = [one / "ticket.safetensors" for one in folder.parent.glob(f"{stem}*") if (one / FINISHED).exists()]
    return max((path for path in found if path.exists()), key=lambda path: path.stat().st_mtime, default=None)


@dataclass
class Outcome:
    """Collects what the record tells beside the scores, and writes it."""

    folder: Path
    config: dict[str, Any]
    started: str
    provenance: dict[str, Any]
    counts: dict[str, int] = field(default_factory=lambda: {"trainable": 0, "head": 0, "cut_rows": 0})
    written: Path | None = None

    @classmethod
    def begin(cls, folder: Path, config: dict[str, Any], data_note: str | None = None) -> "Outcome":
        """Provenance as of this start; a resumed run keeps its first start's time and lists the starts' commits."""
        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        data = {"source": config["sources"]["data"], **({"note": data_note} if data_note else {})}
        provenance = gather(root=REPOSITORY, argv=config["command"], model={}, data=data, gpus=gpus)
        path = folder / STARTED
        first = json.loads(path.read_text()) if path.exists() else {"started": _now(), "commits": []}
        commits = list(dict.fromkeys([*first["commits"], provenance["commit"]]))
        if os.environ.get("RANK", "0") == "0":
            part = path.with_suffix(".part")
            part.write_text(json.dumps({"started": first["started"], "commits": commits}))
            part.replace(path)
        if len(commits) > 1:
            provenance["commits"] = commits
        return cls(folder, config, str(first["started"]), provenance)

    def rows_cut(self, number: int) -> None:
        """Notes training rows that were longer than `training.max_length`."""
        self.counts["cut_rows"] += number

    def count(self, model: nn.Module, head: Sequence[str]) -> None:
        """Counts trainable parameters, the new head's apart."""
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                of_head = any(f".{one}." in f".{name}" for one in head)
                self.counts["head" if of_head else "trainable"] += parameter.numel()

    def write(
        self,
        status: str,
        histories: Mapping[str, History],
        scores: Sequence[Score] = (),
        ticket: Mapping[str, Any] | None = None,
        saved: Path | None = None,
        model: Mapping[str, Any] | None = None,
        evaluation_seconds: float = 0.0,
        forgetting: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the record; after an ok one, mark the folder as finished. `forgetting`: how the probes were asked."""
        provenance = {**self.provenance, "model": {**self.config["sources"], **(model or {})}}
        if forgetting:
            provenance["forgetting"] = dict(forgetting)
        record = Record(
            id=self.config["id"],
            started=self.started,
            finished=_now(),
            status=status,
            config=portable(self._recorded_config(), root=REPOSITORY),
            scores=list(scores),
            ticket=dict(ticket or {}),
            cost=self._cost(histories, saved, evaluation_seconds),
            provenance=portable(provenance, root=REPOSITORY),
        )
        self.written = write_record(self.config["records"]["dir"], record)
        if status == "ok":
            (self.folder / FINISHED).touch()

    def _recorded_config(self) -> dict[str, Any]:
        return {name: value for name, value in self.config.items() if name not in ("id", "sources", "command")}

    def _cost(self, histories: Mapping[str, History], saved: Path | None, evaluation: float) -> dict[str, Any]:
        seconds = {phase: round(history.seconds, 3) for phase, history in histories.items()}
        steps = sum(history.step_seconds for history in histories.values())
        tokens = sum(history.tokens for history in histories.values())
        return {
            **self.counts,
            "stored_bytes": sum(path.stat().st_size for path in saved.rglob("*.safetensors")) if saved else 0,
            "seconds": {**seconds, "evaluation": round(evaluation, 3)},
            "steps": sum(history.steps for history in histories.values()),
            "skipped_steps": sum(history.skipped for history in histories.values()),
            "tokens": tokens,
            "tokens_per_second": round(tokens / steps, 1) if steps else None,
            "peak_bytes": max((history.peak_bytes for history in histories.values()), default=None),
            "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
