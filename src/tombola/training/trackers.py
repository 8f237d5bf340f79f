"""W&B, trackio or TensorBoard through accelerate, on rank 0; one that fails is a warning and stops no run."""

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

TRACKERS = ("none", "wandb", "trackio", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class Log:
    """The `log` group, and what names the run in the tracker."""

    tracker: str = "none"
    project: str = "tombola"
    offline: bool = True
    run_id: str | None = None  # fixed, so that a resumed run goes on in the same place
    group: str | None = None
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tracker not in TRACKERS:
            raise ValueError(f"log.tracker must be one of {', '.join(TRACKERS)}. Got {self.tracker!r}.")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Log":
        """The log of a composed configuration, grouped and tagged by table, method, model and task."""
        names = [config.get(group, {}).get("name") for group in ("method", "model", "task")]
        tags = tuple(str(tag) for tag in (config.get("table"), *names) if tag)
        group = config.get("table") or "/".join(str(name) for name in names[1:] if name) or None
        return cls(**config.get("log", {}), run_id=config.get("id"), group=group, tags=tags, config=config)


class Tracker:
    """Where numbers are shown beside `log.jsonl`. Starts at the first number."""

    def __init__(self, accelerator: Accelerator, log: Log, folder: Path):
        self.accelerator = accelerator
        self.log = log
        self.folder = folder
        self.state = "waiting" if log.tracker != "none" and accelerator.is_main_process else "off"

    def numbers(self, values: dict[str, float], step: int) -> None:
        """Logs numbers at a step that grows over the whole run."""
        if self.state == "waiting":
            self._start()
        if self.state == "on":
            try:
                self.accelerator.log(values, step=step)
            except Exception as error:  # whatever a tracker raises, the run is worth more
                self._give_up(error)

    def close(self) -> None:
        """Finishes the tracker's run."""
        if self.state == "on":
            try:
                self.accelerator.end_training()
            except Exception as error:
                self._give_up(error)
        self.state = "off"

    def _start(self) -> None:
        try:
            from accelerate.tracking import filter_trackers

            self.accelerator.project_configuration.set_directories(str(self.folder))
            self.accelerator.log_with = filter_trackers([self.log.tracker], self.folder)
            self.accelerator.init_trackers(self.log.project, self._config(), self._options())
            self.state = "on"
        except Exception as error:
            self._give_up(error)

    def _config(self) -> dict[str, Any]:
        if self.log.tracker != "tensorboard":
            return self.log.config
        return dict(_flat(self.log.config))  # its hyper-parameters are plain values

    def _options(self) -> dict[str, Any]:
        log = self.log
        if log.tracker == "trackio":
            return {"trackio": {"name": log.run_id, "group": log.group, "resume": "allow"}}
        if log.tracker == "tensorboard":
            return {}
        import wandb

        # Without a key wandb would ask for one on a terminal.
        offline = log.offline or not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key)
        settings = wandb.Settings(init_timeout=30, silent=True)
        names = {"id": log.run_id, "name": log.run_id, "group": log.group, "tags": list(log.tags), "resume": "allow"}
        mode = "offline" if offline else "online"
        return {"wandb": {**names, "mode": mode, "dir": str(self.folder), "settings": settings}}

    def _give_up(self, error: Exception) -> None:
        self.state = "off"
        warnings.warn(f"log={self.log.tracker} is off from here ({error}); log.jsonl goes on.", stacklevel=3)


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, value if isinstance(value, int | float | str | bool) else str(value)))
    return flat
