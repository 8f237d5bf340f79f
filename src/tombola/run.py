"""One run, from `runs/<id>/config.json` to a record. The only file that sees every room.

`train.py` composes and checks the config, writes the folder and calls `main` here, once a rank. Every stage looks for
its own result first, so that the same command goes on where a killed run stopped.
"""

import gc
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from rich.console import Console
from torch import nn

import tombola  # noqa: F401  registers the tuners
from tombola import before_after
from tombola.before_after import BeforeAfter, ProbesFailed, Result
from tombola.evaluation import VllmFailed, Writer, answer
from tombola.methods import AdapterRefused, Method, Qlora
from tombola.models import Host, ModelUnavailable, load_host
from tombola.outcome import FINISHED, Outcome, checksum, read_config, sibling_ticket, told
from tombola.pictures import draw_densities, draw_partition, draw_ticket, read_partition
from tombola.sample import divided
from tombola.scores import task_scores, tell
from tombola.tasks import DataError, Example, Task, load_task, tokenised
from tombola.training import AcceleratedTrainer, Interrupted, Log, NonFinite, Ranks, Settings, leave, validation_loss
from tombola.writer import evaluation_device, writer
from tombola_cli.records import Score
from tombola_cli.records.sources import forgetting_probes

FAILED, REQUEUE = 1, 75  # 75 is sysexits' EX_TEMPFAIL: schedulers take it for "start me again"
# What a run leaves behind for its own resumption, and what was exported of it; `force=true` begins without it.
STATE: tuple[str, ...] = ("phases", "checkpoints", "adapter", "checkpoint", "answers", "log.jsonl", "exported")
STATE += ("forgetting", "evaluations", FINISHED)


class SettingRefused(Exception):
    """A method, or its adapter's config, does not take a value that it was given."""


def main(folder: Path) -> int:
    """The exit status: 0 recorded, 1 a user's mistake or a diverged run, 75 stopped by a signal after a checkpoint."""
    return attempt(lambda console: Run.of(Path(folder), console).execute())


def attempt(work: Callable[[Console], int]) -> int:
    """The exit status of `work`; a user's mistake and a stop by a signal are one line each."""
    console = Console()
    # PEFT 0.21 asks transformers 5.23 for a name that it will drop; nothing that a user could do about it.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    status = _status(work, console)
    leave()
    return status


def _status(work: Callable[[Console], int], console: Console) -> int:
    try:
        return work(console)
    except (DataError, ModelUnavailable, SettingRefused, AdapterRefused, ProbesFailed, VllmFailed) as error:
        if str(error):
            console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        return FAILED
    except Interrupted as stopped:
        console.print(f"{stopped}", highlight=False, soft_wrap=True)
        return REQUEUE


@dataclass(frozen=True)
class Run:
    """What a run is made of."""

    folder: Path
    config: dict[str, Any]
    settings: Settings
    task: Task
    method: Method
    outcome: Outcome
    console: Console
    forgetting: BeforeAfter | None = None

    @classmethod
    def of(cls, folder: Path, console: Console) -> "Run":
        """The run that `folder` describes. Raises DataError for unusable data, SettingRefused for values."""
        config = read_config(folder)
        if config["force"] and (folder / FINISHED).exists():
            _forget(folder)
        task = load_task(config["task"], role=config["model"]["role"])
        method = method_of(config["method"])
        settings = Settings(**config["training"], seed=config["seed"])
        outcome = Outcome.begin(folder, config, task.data_note)
        forgetting = None
        if probes := forgetting_probes(config):
            forgetting = BeforeAfter.of(config, probes, folder, first=os.environ.get("RANK", "0") == "0")
        return cls(folder, config, settings, task, method, outcome, console, forgetting)

    def execute(self) -> int:
        """Train, save, then evaluate what was saved, draw it and write the record."""
        if self.task.data_note:
            self.console.print(f"note: {self.task.data_note}", style="yellow", highlight=False, soft_wrap=True)
        if self.forgetting:
            self.forgetting.before()  # now, so that what is wrong with lm-eval or its data is known before the training
        host = self._host("cpu")
        if self.settings.base_dropout is not None:
            set_dropout(host.net, self.settings.base_dropout)
        trainer = self._trainer(host)
        try:
            saved = self._fit(host, trainer)
            del host  # or two models would be in memory
            return self._report(saved, trainer)
        except NonFinite as error:
            self.console.print(f"diverged: {error}", style="red", highlight=False, soft_wrap=True)
            if trainer.ranks.first:
                self.outcome.write("diverged", trainer.histories)
            return FAILED
        finally:
            trainer.close()

    def _host(self, device: str) -> Host:
        task = self.config["task"]
        return load_host(
            self.config["model"], kind=task["kind"], labels=task["labels"], seed=self.settings.seed, device=device
        )

    def _trainer(self, host: Host) -> AcceleratedTrainer:
        train, validation = divided(self.task, self.settings)
        length = self.settings.max_length
        tokenizer = host.processor
        validate = self._metric(host, validation) if validation and self.settings.select == "best" else None
        return AcceleratedTrainer(
            settings=self.settings,
            rows=tokenised(self.task, train, tokenizer, max_length=length, on_cut=self.outcome.rows_cut),
            run_dir=self.folder,
            pad_token_id=getattr(tokenizer, "pad_token_id", None) or 0,
            padding_side=getattr(tokenizer, "padding_side", "right"),
            launch=self.config["launch"],
            log=Log.from_config(self.config),
            validate=validate,
            console=self.console,
        )

    def _metric(self, host: Host, examples: Sequence[Example]) -> Callable[[nn.Module], float]:
        """What the best checkpoint is chosen by: the task's first metric, or the loss where answers are generated."""
        if self.task.answers_by == "generate":  # generation costs minutes, and LLM-Adapters chose by the loss as well
            rows = tokenised(self.task, examples, host.processor, max_length=self.settings.max_length)
            return lambda model: -validation_loss(model, rows, self.settings, host.processor.pad_token_id)
        budget, length = self.settings.eval_token_budget, self.settings.max_length

        def metric(model: nn.Module) -> float:
            answers = answer(model, self.task, examples, host.processor, token_budget=budget, max_length=length)
            return next(iter(self.task.measure(examples, answers).values()))

        return metric

    def _fit(self, host: Host, trainer: AcceleratedTrainer) -> Path:
        """The folder of what the method saved, whole or not there."""
        model = self.method.fit(host, trainer)
        saved = self.folder / self.method.saved_in
        if trainer.ranks.first:
            self.outcome.count(model, host.head)
            if not saved.exists():
                part = saved.with_name(f"{saved.name}.part")
                shutil.rmtree(part, ignore_errors=True)
                self.method.save(model, part)
                if self.method.saved_in == "checkpoint":
                    host.processor.save_pretrained(part)  # a checkpoint is used alone, an adapter with its base
                part.rename(saved)
        trainer.accelerator.wait_for_everyone()
        return saved

    def _report(self, saved: Path, trainer: AcceleratedTrainer) -> int:
        """Scores, picture and record of the saved model, loaded as a user would load it."""
        host = self._host(evaluation_device(self.config, self.task, trainer.ranks.device))
        model = self.method.load(host, saved)
        started = time.perf_counter()
        with writer(self.config, self.task, model, host, saved, self.folder) as write:
            scores = self._scores(model, host, checksum(saved), trainer.ranks, write)
        seconds = time.perf_counter() - started
        ticket = self._draw(model, told(saved)) if trainer.ranks.first else {}
        provenance = host.provenance
        del model, host  # or lm-eval's process would find the memory taken
        found = self._forgotten(saved)
        forgotten = before_after.scores(self.config["forgetting"]["name"], *found) if found else []
        if trainer.ranks.first:
            asked = before_after.protocol(*found) if found else None
            every = [*scores, *forgotten]
            self.outcome.write("ok", trainer.histories, every, ticket, saved, provenance, seconds, asked)
            tell(self.console, self.outcome, scores, before_after.lines(*found) if found else ())
        trainer.report({f"{score.split}/{score.metric}": score.value for score in [*scores, *forgotten]})
        trainer.accelerator.wait_for_everyone()
        return 0

    def _scores(self, model: nn.Module, host: Host, of: str, ranks: Ranks, write: Writer | None = None) -> list[Score]:
        console = self.console if ranks.first else Console(quiet=True)
        how = {"rank": ranks.rank, "world_size": ranks.count, "write": write}
        return task_scores(model, self.task, host, self.settings, self.folder, of=of, console=console, **how)

    def _forgotten(self, saved: Path) -> tuple[Result, Result] | None:
        """lm-eval's results before and after, where forgetting is measured."""
        if self.forgetting is None:
            return None
        if torch.cuda.is_available():  # the other process needs the memory
            gc.collect()
            torch.cuda.empty_cache()
        return self.forgetting.before(), self.forgetting.after(saved)

    def _draw(self, model: nn.Module, says: dict[str, Any]) -> dict[str, Any]:
        """The ticket's summary with what the method says, after drawing both; LoRA is pooled to BoLA's grid here."""
        title = "{} on {} · {}".format(*(self.config[group]["name"] for group in ("method", "model", "task")))
        grid = self.config["model"]["grid"]
        if "densities" in says:
            draw_densities(says["densities"], self.folder / "densities.png", title)
        if dominant := read_partition(model):
            draw_partition(dominant, self.folder / "partition.png", title)
        drawn = draw_ticket(
            model,
            self.folder / "ticket.png",
            title,
            beside=sibling_ticket(self.folder),
            grid=(grid["in_divs"], grid["out_divs"]),
        )
        return {**drawn, **says}


def method_of(config: dict[str, Any]) -> Method:
    """The method of a run's config. Raises SettingRefused for a value that it does not take."""
    try:
        made: Method = instantiate({key: value for key, value in config.items() if key != "name"}, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise SettingRefused(f"method={config['name']}: {error.__cause__}") from error
        raise
    return made


def untrained(method: Method, host: Host) -> nn.Module:
    """The model that the method starts from: QLoRA's is in four bits, and RIGSA compares QLoRA with that (Table 3)."""
    return method.base(host) if isinstance(method, Qlora) else host.net


def set_dropout(net: nn.Module, rate: float) -> None:
    """Give every dropout of the frozen model, attention's included, the same rate; an adapter's own comes later."""
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


def _forget(folder: Path) -> None:
    """Begin anew: drop what a finished run left for its resumption."""
    for name in STATE:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
