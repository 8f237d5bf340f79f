"""lm-eval's probes of a run's model before and after training, each time in a process of its own.

So lm-eval's imports, random state and memory stay out of training. The base model is asked once for all runs of it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from tombola.evaluation.fingerprint import digest
from tombola.models.hub import hub_folder
from tombola.tasks import load_task
from tombola.training import Interrupted
from tombola_cli.parent import forwarding
from tombola_cli.past_run import checksum
from tombola_cli.records import Score, data_source
from tombola_cli.records.provenance import package_versions

JOB, RESULT = "job.json", "result.json"
SOURCES = Path(__file__).resolve().parents[1]
ASKED = ("probes", "limit", "shots", "chat_template", "batch_size")
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "lm-eval")  # what can change a likelihood's last bits
# What a launcher tells its ranks; lm-eval's process is none of them.
RANKS = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_", "TORCHELASTIC_",
    "ACCELERATE_",
)  # fmt: skip
SAID = 1  # the exit status after a line on what is wrong
POLL_SECONDS = 2

Result = dict[str, Any]


class ProbesFailed(Exception):
    """lm-eval's process ended without a result; the message is empty where it has said why itself."""


@dataclass(frozen=True)
class BeforeAfter:
    """The probes that a run's model is asked; on ranks other than the `first`, its results are waited for."""

    config: Mapping[str, Any]
    probes: Mapping[str, Any]  # the fields of `conf/task/probes/forgetting.yaml`
    folder: Path
    first: bool = True

    @classmethod
    def of(
        cls, config: Mapping[str, Any], probes: Mapping[str, Any], folder: Path, *, first: bool = True
    ) -> "BeforeAfter":
        """`probes` of the run in `folder`, under `training.max_eval_rows`. Raises DataError for unusable data."""
        cap = config["training"]["max_eval_rows"]
        limits = {probe: [most for most in (probes["limit"].get(probe), cap) if most] for probe in probes["probes"]}
        capped = {**probes, "limit": {probe: min(found, default=None) for probe, found in limits.items()}}
        load_task(capped, role=config["model"]["role"])  # hours later would be too late to find the data torn
        return cls(config, capped, folder, first)

    def before(self) -> Result:
        """What the base model answers; kept in `before` beside the runs, under a key of all that decides it."""
        place = self.base_place()
        return self._asked(place, place.name, saved=None)

    def base_place(self) -> Path:
        """The folder of the base model's answers."""
        return self.folder.parent / "before" / self._base_key()

    def after(self, saved: Path) -> Result:
        """What the model of a saved adapter or checkpoint answers; kept in the run's folder."""
        if str(self.config["method"]["_target_"]).endswith(".Base"):
            return self.before()  # a decoder is left as it is, so there is nothing else to ask
        key = digest(self._base_key(), self.config["method"], checksum(saved))
        return self._asked(self.folder / "forgetting" / key, key, saved=saved)

    def _base_key(self) -> str:
        model, method = self.config["model"], self.config["method"]
        four_bit = [method.get("quantisation"), method.get("double_quantisation")]
        versions = package_versions()
        return digest(
            [self.config["sources"]["weights"], _commit(model), model["dtype"], four_bit],
            [data_source(self.probes), {name: self.probes[name] for name in ASKED}],
            [device(), {name: versions.get(name) for name in PACKAGES}],
        )

    def _asked(self, place: Path, key: str, saved: Path | None) -> Result:
        result = place / RESULT
        while not self.first and not result.exists():  # a collective that waits for hours would time out
            time.sleep(POLL_SECONDS)
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):  # two runs of one model may both want its base's answers
            if not result.exists():
                job = {"config": self.config, "probes": self.probes, "saved": saved and str(saved.resolve())}
                (place / JOB).write_text(json.dumps({**job, "of": key, "device": device()}), encoding="utf-8")
                _run(place)
        return dict(json.loads(result.read_text(encoding="utf-8")))


def scores(name: str, before: Result, after: Result) -> list[Score]:
    """Of each probe and metric: the trained model's score, the base's (`_before`), and how much it moved.

    Raises ProbesFailed where the hub's rows changed in between.
    """
    found = []
    for probe, asked in after["probes"].items():
        if asked["rows"] != before["probes"][probe]["rows"]:
            raise ProbesFailed(f"{probe}: other rows after than before; remove the base's answers, they are asked anew")
        for metric, value in asked["metrics"].items():
            base = before["probes"][probe]["metrics"][metric]
            numbers = {metric: value, f"{metric}_before": base, f"{metric}_difference": value - base}
            found += [Score(name, probe, label, number, asked["n"]) for label, number in numbers.items()]
    return found


def protocol(before: Result, after: Result) -> dict[str, Any]:
    """How the probes were asked, for a record's provenance: lm-eval's version, its tasks' versions, shots, template."""
    told = ("version", "shots", "n", "cut", "rows")
    return {
        **{name: after[name] for name in ("lm_eval", "chat_template", "batch_size")},
        "probes": {probe: {name: asked[name] for name in told} for probe, asked in after["probes"].items()},
        "seconds": {"before": before["seconds"], "after": after["seconds"]},
    }


def lines(before: Result, after: Result) -> list[str]:
    """The same for a reader, a line for each probe and metric."""
    return [
        f"{probe}: {metric} {100 * value:.2f} % after, "
        f"{100 * (base := before['probes'][probe]['metrics'][metric]):.2f} % before, "
        f"{100 * (value - base):+.2f} points (n={asked['n']})"
        for probe, asked in after["probes"].items()
        for metric, value in asked["metrics"].items()
    ]


def _commit(model: Mapping[str, Any]) -> str | None:
    """What a branch of the hub, `main` say, is today; None for weights whose checksum is known."""
    return None if model["path"] or model["source"] != "hub" else hub_folder(model)[1]["revision"]


def device() -> str:
    """Where a model is asked by a process alone."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _run(place: Path) -> None:
    """The child to its end, with signals passed on."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(RANKS)}
    paths = [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "TQDM_DISABLE": "1"}  # one bar of our own is enough
    child = subprocess.Popen(
        [sys.executable, "-m", "tombola.probe", str(place.resolve())], env=environment, start_new_session=True
    )
    with forwarding(lambda: [child.pid] if child.poll() is None else []) as arrived:
        status = child.wait()
    if arrived:
        raise Interrupted("Stopped while lm-eval was asking. The same command goes on after its last answers.")
    if status:
        died = f"lm-eval's process ended with status {status}; started again, it goes on after its last answers"
        raise ProbesFailed("" if status == SAID else died)
