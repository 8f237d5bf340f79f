"""What sparse methods ask of the trainer, under any launch: `[torch.distributed.run] sparse_launches.py KIND FOLDER`.

An encoder with a head: four parameter groups, by learning rate and by weight decay. Writes FOLDER/results.safetensors
with tensors named `job|tensor`.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tests.training.tiny import rows, trained
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaForSequenceClassification

from tombola.training import AcceleratedTrainer, Interrupted, Rewrite, Settings, Window, leave, zero

SETTINGS: dict[str, Any] = {
    "epochs": 2, "batch_size": 6, "token_budget": 48, "lr": 3e-3, "head_lr": 1e-3, "weight_decay": 0.1,
    "checkpoint_every": 3, "max_grad_norm": 0.5, "warmup_ratio": 0.2, "seed": 5,
}  # fmt: skip
NAME = "base_model.model.roberta.encoder.layer.0.attention.self.query.lora_B.default.weight"
ORIGIN = torch.tensor([3, -1, 0, 1, -1, *range(5, 22)])


class Scale(nn.Module):
    """One number, as a gate is; of one dimension, for DeepSpeed cannot broadcast a parameter without any."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7]))

    def forward(self, given: Tensor) -> Tensor:
        return given * self.weight


def headed() -> PeftModel:
    """A tiny RoBERTa with LoRA and a trained head with a scalar; some tensors do not divide by two ranks."""
    torch.manual_seed(0)
    shape = {"hidden_size": 22, "intermediate_size": 27, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = RobertaConfig(**shape, vocab_size=64, num_labels=3, pad_token_id=0, hidden_dropout_prob=0.0)
    config.attention_probs_dropout_prob = 0.0
    net = RobertaForSequenceClassification(config)
    net.classifier.dense = nn.Sequential(net.classifier.dense, Scale())
    return get_peft_model(net, LoraConfig(target_modules=["query", "value"], r=3, task_type="SEQ_CLS"))


def data() -> list[dict[str, Any]]:
    return [{"input_ids": row["input_ids"], "label": number % 3} for number, row in enumerate(rows())]


def trainer(kind: str, folder: Path, **settings: Any) -> AcceleratedTrainer:
    return AcceleratedTrainer(
        settings=Settings(**{**SETTINGS, **settings}), rows=data(), run_dir=folder, pad_token_id=0,
        launch={"kind": kind},
    )  # fmt: skip


class Act:
    """A hook that does something after one step."""

    def __init__(self, at: int, act: Any) -> None:
        self.at = at
        self.act = act

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step == self.at:
            self.act(model)


def windows(kind: str, folder: Path, stopped: bool = False) -> dict[str, Tensor]:
    """Two windows; the second may be stopped by a signal and resumed."""
    for stop in (True, False) if stopped else (False,):
        model, run = headed(), trainer(kind, folder)
        run.train(model, phase="one", steps=5, window=Window("all", 0, 12), keep_optimizer=True)
        state = run.optimizer_state("one")
        kill = Act(3, lambda model: os.kill(os.getpid(), signal.SIGTERM))
        try:
            run.train(
                model, phase="two", steps=7, window=Window("all", 5, 12), optimizer=state, hooks=[kill] if stop else []
            )
        except Interrupted:
            assert stop
    return {**trained(model), **{f"state/{path}": value for path, value in state.items()}}


def rewritten(kind: str, folder: Path) -> dict[str, Tensor]:
    """Entries of one parameter trade places, two begin anew, one of them with moments of its own."""
    model, run = headed(), trainer(kind, folder)
    found: dict[str, Tensor] = {}

    def move(model: nn.Module) -> None:
        assert run.running is not None
        values = run.running.engine.values()[NAME]
        values = torch.where((ORIGIN >= 0)[:, None], values[ORIGIN.clamp(min=0)], 0.5)
        parameter = model.get_parameter(NAME)
        seeds = {"exp_avg": torch.full((22, 3), 0.01), "exp_avg_sq": torch.full((22, 3), 0.001)}
        run.rewrite(model, {NAME: Rewrite(values, ORIGIN, seeds)})
        assert model.get_parameter(NAME) is parameter
        assert torch.equal(run.running.engine.values()[NAME], values)
        state = run.running.engine.optimizer_state()
        found.update({f"moved/{path}": value.clone() for path, value in state.items()})

    run.train(model, phase="order", hooks=[Act(3, move)], keep_optimizer=True)
    return {**trained(model), **found, **run.optimizer_state("order")}


def dense(kind: str, folder: Path) -> dict[str, Tensor]:
    """Dense gradients in the midst of a phase, before it and after it."""
    model, run = headed(), trainer(kind, folder)
    found: dict[str, Tensor] = {}

    def look(moment: str, step: int) -> Any:
        def act(model: nn.Module) -> None:
            layers = {path: layer for path, layer in model.named_modules() if path.endswith((".query", ".value"))}
            options: Any = {"phase": "order", "step": step, "rows": 5 if moment == "before" else None}
            run.dense_gradients(model, layers, lambda path, g: found.update({f"{moment}/{path}": g}), **options)

        return act

    look("before", 1)(model)
    run.train(model, phase="order", hooks=[Act(3, look("within", 4))])
    look("after", 7)(model)
    assert len(found) == 3 * 4
    return {**trained(model), **found}


def per_entry(kind: str, folder: Path) -> dict[str, Tensor]:
    """An optimizer of ours, whose state is like torch's but for the ages; stopped and resumed."""
    for stop in (True, False):
        model, run = headed(), trainer(kind, folder, optimizer="adamw_per_entry")
        kill = Act(4, lambda model: os.kill(os.getpid(), signal.SIGTERM))
        try:
            run.train(model, phase="one", hooks=[kill] if stop else [], keep_optimizer=True)
        except Interrupted:
            assert stop
    return {**trained(model), **run.optimizer_state("one")}


def few(kind: str, folder: Path) -> dict[str, Tensor]:
    """A phase on a few of the rows, accuracy on them before and after, and what the first rank makes."""
    model, run = headed(), trainer(kind, folder)
    with run.few_shot(per_class=5, share=1.0):
        measured = [run.accuracy(model)]
        run.train(model, phase="few")
        measured.append(run.accuracy(model))
    assert run.ranks.gather(measured) == [measured] * run.ranks.count
    made = run.once("made", lambda: {"rank": torch.tensor([float(run.ranks.rank)])})
    assert run.ranks.gather(float(made["rank"])) == [0.0] * run.ranks.count
    return {**trained(model), "accuracy": torch.tensor(measured)}


def halved(kind: str, folder: Path) -> None:
    """bfloat16 values stay the same on every rank; ZeRO refuses them."""
    model, run = headed(), trainer(kind, folder)
    for name in (NAME, NAME.replace("lora_B", "lora_A")):
        model.get_parameter(name).data = model.get_parameter(name).data.bfloat16()
    try:
        run.train(model, phase="one")
    except ValueError as error:
        if not (kind.startswith("zero") and "is trained in bfloat16" in str(error)):
            raise
        return
    found = [hashlib.sha256(t.float().numpy().tobytes()).hexdigest() for t in trained(model).values()]
    assert run.ranks.gather(found) == [found] * run.ranks.count


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    zero.PERSISTENT_ELEMENTS = 0  # every parameter of the tiny model is really partitioned
    results = {
        "windows": windows(kind, folder / "windows"),
        "stopped": windows(kind, folder / "stopped", stopped=True),
        "rewritten": rewritten(kind, folder / "rewritten"),
        "dense": dense(kind, folder / "dense"),
        "per entry": per_entry(kind, folder / "per_entry"),
        "few": few(kind, folder / "few"),
    }
    halved(kind, folder / "halved")
    if int(os.environ.get("RANK", 0)) == 0:
        flat = {f"{job}|{name}": t.contiguous() for job, tensors in results.items() for name, t in tensors.items()}
        save_file(flat, folder / "results.safetensors")


if __name__ == "__main__":
    main()
    leave()
