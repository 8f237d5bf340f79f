"""The loop over one phase's optimizer steps."""

import math
import time
from pathlib import Path

import torch
from torch import nn

from tombola.training import random_state
from tombola.training.accumulate import accumulate
from tombola.training.engine import Engine
from tombola.training.feed import Feed, OptimizerBatch
from tombola.training.interrupt import StopRequest
from tombola.training.loss import takes_logits_to_keep
from tombola.training.plan import Plan
from tombola.training.protocol import History, Interrupted, NonFinite
from tombola.training.report import Report
from tombola.training.state import Keeper, PhaseState

MOST_REWINDS = 3  # a phase


class Phase:
    """Steps, validation, checkpoints, and what to do about a step that is not finite."""

    def __init__(self, plan: Plan, engine: Engine, model: nn.Module, feed: Feed, report: Report):
        self.plan = plan
        self.engine = engine
        self.model = model
        self.feed = feed
        self.settings = feed.settings
        self.report = report
        self.keeper = Keeper(plan, engine, model, feed)
        self.keeps_logits = takes_logits_to_keep(model)
        self.state = PhaseState(History(plan.name), list(plan.redraws))

    def run(self, stop: StopRequest) -> History:
        """Starts or goes on, to the end; raises Interrupted, after a checkpoint, when a signal asks for it."""
        self._start()
        while True:
            if self._validation_is_due():
                self._validate()
            if self.state.history.steps >= self.plan.total_steps:
                break
            self._step()
            stopping = self.feed.ranks.any(stop.arrived)
            step = self.state.history.steps
            if stopping or step % self.settings.checkpoint_every == 0:
                self.keeper.save(self.state)
            if stopping:
                raise Interrupted(f"Stopped after step {step} of phase {self.plan.name}. The same command goes on.")
        if self.settings.select == "best" and self.plan.ends_whole:
            self.keeper.set_tensors(self.state.best)
        self.keeper.finish(self.state)
        return self.state.history

    def _start(self) -> None:
        newest = self.keeper.newest()
        if newest is not None:
            self._go_back(newest)
        else:
            self.report.resume(self.plan.name, 0)
            self.keeper.start()
            if self.settings.non_finite == "rewind":
                self.keeper.save(self.state)  # something to rewind to
        self.model.train()

    def _go_back(self, folder: Path) -> None:
        self.state = self.keeper.resume(folder)
        self.report.resume(self.plan.name, self.state.history.steps)

    def _step(self) -> None:
        started = time.perf_counter()
        step = self.state.history.steps
        drawn = self.feed.draw(self.plan.window.whole, self.plan.step(step), self.state.redraws)
        loss = float(accumulate(self.engine, self.feed, drawn, keeps_logits=self.keeps_logits))
        norm = self.engine.gradient_norm()
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self._move(norm, step)
        else:
            self.engine.forget_gradients()
            if self.settings.non_finite != "skip":
                return self._stop_or_rewind(loss, norm)
        self._record(drawn, loss, norm, finite, time.perf_counter() - started)

    def _move(self, norm: float, step: int) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.plan.factor(step)
        if self._call_hooks("before_step", step) and self.settings.max_grad_norm is not None:
            norm = self.engine.gradient_norm()  # a hook may have changed it
        seed = random_state.derived_seed("rounding", self.settings.seed, self.plan.name, step)
        self.engine.step(self.settings.max_grad_norm, norm, seed=seed)
        self._call_hooks("after_step", step)

    def _call_hooks(self, moment: str, step: int) -> bool:
        """Whether there was one. They draw the same random numbers on every rank, or the ranks' models would part."""
        calls = [getattr(hook, moment) for hook in self.plan.hooks if hasattr(hook, moment)]
        if calls:
            with random_state.seeded(self.settings.seed, self.plan.name, moment, step):
                for call in calls:
                    call(self.model, self.engine.optimizer, step)
        return bool(calls)

    def _stop_or_rewind(self, loss: float, norm: float) -> None:
        """Rewinding goes back to the last checkpoint and shuffles all rows that follow it, to meet other batches."""
        what = f"phase {self.plan.name}, step {self.state.history.steps + 1}: loss {loss}, gradient norm {norm}"
        if self.settings.non_finite == "stop":
            raise NonFinite(f"Not finite in {what}. Try a lower training.lr, or training.non_finite=skip or rewind.")
        redraws, rewinds = self.state.redraws, self.state.history.rewinds
        if rewinds == MOST_REWINDS:
            raise NonFinite(f"Not finite in {what}, after {MOST_REWINDS} rewinds. Try a lower training.lr.")
        newest = self.keeper.newest()
        assert newest is not None  # _start writes one
        self._go_back(newest)
        epoch, number = divmod(self.plan.step(self.state.history.steps), self.feed.steps_per_epoch)
        self.state.redraws = [*redraws, (epoch, number * self.settings.batch_size)]
        self.state.history.rewinds = rewinds + 1

    def _record(self, drawn: OptimizerBatch, loss: float, norm: float, finite: bool, seconds: float) -> None:
        history = self.state.history
        history.steps += 1
        history.losses.append(loss if finite else math.nan)
        history.skipped += not finite
        history.tokens += drawn.tokens
        history.step_seconds += seconds
        line = {
            "phase": self.plan.name,
            "step": history.steps,
            "epoch": round(self.plan.step(history.steps) / self.feed.steps_per_epoch, 4),
            "loss": loss,
            "lr": self.settings.lr * self.plan.factor(history.steps - 1),
            "grad_norm": norm,
            "tokens": drawn.tokens,
            "seconds": round(seconds, 4),
        }
        self.report.step(line if finite else {**line, "skipped": True}, history, self.model)

    def _validation_is_due(self) -> bool:
        history = self.state.history
        every = self.settings.validate_every or self.feed.steps_per_epoch
        if self.plan.validate is None or history.steps == 0:
            return False
        # A checkpoint is written before the validation at its step, so a resumed run has this one to do.
        step = self.plan.step(history.steps)
        return step % every == 0 or step == self.plan.window.total

    def _validate(self) -> None:
        assert self.plan.validate is not None
        history = self.state.history
        self.model.eval()
        # Seeded apart, so that validating more often does not change training.
        with torch.no_grad(), random_state.seeded(self.settings.seed, self.plan.name, "validation", history.steps):
            measured = float(self.plan.validate(self.model))
        self.model.train()
        value = self.feed.ranks.from_first(lambda: measured)
        history.validations.append((history.steps, value))
        if history.best is None or value > history.best:
            history.best, history.best_step = value, history.steps
            if self.settings.select == "best":
                self.state.best = {name: t.detach().cpu().clone() for name, t in self.keeper.tensors().items()}
        self.report.validation(self.plan.name, history.steps, value)
