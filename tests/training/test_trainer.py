import json
import math
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from tests.training.tiny import adapted, rows, tiny_llama, trained
from torch import nn

from tombola.training import AcceleratedTrainer, Interrupted, Settings

FAST = {"epochs": 2, "batch_size": 8, "token_budget": 64, "lr": 3e-3, "checkpoint_every": 3}  # 8 steps


def make(folder: Path, *, count: int = 32, validate: Any = None, **settings: Any) -> AcceleratedTrainer:
    return AcceleratedTrainer(
        settings=Settings(**{**FAST, **settings}), rows=rows(count), run_dir=folder, pad_token_id=0, validate=validate
    )


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Counter:
    """A hook that counts, and can do something before a step."""

    def __init__(self, before: Any = None) -> None:
        self.steps: list[tuple[str, int]] = []
        self.before = before

    def before_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        self.steps.append(("before", step))
        if self.before:
            self.before(model, step)

    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        self.steps.append(("after", step))


def test_a_phase_learns_and_tells_its_history(tmp_path: Path) -> None:
    model = adapted(dropout=0.1)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    history = make(tmp_path, epochs=12, lr=2e-2).train(model, phase="train")
    assert history.steps == len(history.losses) == 48
    assert sum(history.losses[-8:]) < 0.98 * sum(history.losses[:8])
    assert history.tokens == 12 * sum(len(row["input_ids"]) for row in rows())
    assert 0 < history.step_seconds < history.seconds
    assert history.tokens_per_second == history.tokens / history.step_seconds
    assert history.peak_bytes > 2**20
    assert all(torch.equal(frozen[name], model.get_parameter(name)) for name in frozen)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_log_has_a_line_a_step(tmp_path: Path) -> None:
    history = make(tmp_path, epochs=5, warmup_ratio=0.1).train(adapted("bola"), phase="train")
    lines = log(tmp_path)
    assert [(line["phase"], line["step"]) for line in lines] == [("train", step) for step in range(1, 21)]
    assert [line["loss"] for line in lines] == history.losses
    assert lines[3]["epoch"] == 1.0
    assert lines[0]["lr"] == 0.0
    assert lines[2]["lr"] == 3e-3
    assert lines[0].keys() == {"phase", "step", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds"}
    # every 20 steps the layers say how many distinct blocks they have drawn, of k = 3
    assert 1 <= lines[19]["unique_blocks_min"] <= lines[19]["unique_blocks_mean"] <= lines[19]["unique_blocks_max"] <= 3


def test_a_finished_phase_is_loaded_and_not_trained_again(tmp_path: Path) -> None:
    model = adapted("bola")
    history = make(tmp_path).train(model, phase="train")
    after = torch.rand(3)
    again, hook = adapted("bola"), Counter()
    loaded = make(tmp_path).train(again, phase="train", hooks=[hook])
    assert hook.steps == []
    assert equal(trained(model), trained(again))
    assert repr(loaded) == repr(history)
    assert torch.equal(torch.rand(3), after)  # what a method draws next is the same
    assert len(log(tmp_path)) == 8
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_phases_are_apart_and_may_say_their_length(tmp_path: Path) -> None:
    model, trainer = adapted(), make(tmp_path)
    assert trainer.train(model, phase="one", steps=3).steps == 3
    first = trained(model)
    assert trainer.train(model, phase="two", epochs=1).steps == 4
    assert not equal(first, trained(model))
    assert [line["phase"] for line in log(tmp_path)] == ["one"] * 3 + ["two"] * 4
    assert [path.name for path in sorted((tmp_path / "phases").iterdir())] == ["one", "two"]


def test_max_steps_caps_every_phase(tmp_path: Path) -> None:
    assert make(tmp_path, max_steps=2).train(adapted(), phase="train").steps == 2


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate([1, 1, 2]):
        model = adapted(dropout=0.1)
        torch.rand(number)  # what was drawn before does not matter
        make(tmp_path / str(number), seed=seed).train(model, phase="train")
        found.append(trained(model))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


def test_hooks_are_called_around_each_step_and_see_gradients(tmp_path: Path) -> None:
    norms: list[float] = []

    def look(model: nn.Module, step: int) -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()))

    hook = Counter(look)
    make(tmp_path, max_steps=3).train(adapted(), phase="train", hooks=[hook, object()])
    assert hook.steps == [(when, step) for step in range(3) for when in ("before", "after")]
    assert norms == pytest.approx([line["grad_norm"] for line in log(tmp_path)], rel=1e-5)


def test_clipping_comes_after_the_hooks(tmp_path: Path) -> None:
    def enlarge(model: nn.Module, step: int) -> None:
        for p in model.parameters():
            if p.grad is not None:
                p.grad.mul_(1e6)

    before, model = trained(adapted()), adapted()
    settings = {"optimizer": "sgd", "lr": 1.0, "max_grad_norm": 0.5, "schedule": "constant"}
    make(tmp_path, max_steps=1, **settings).train(model, phase="train", hooks=[Counter(enlarge)])
    moved = math.sqrt(sum(float((trained(model)[name] - before[name]).square().sum()) for name in before))
    assert moved == pytest.approx(0.5, rel=1e-4)


def test_the_best_validation_is_what_a_phase_ends_with(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    values = [0.3, 0.9, 0.9, 0.1]

    def validate(model: nn.Module) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.rand(10)
        seen.append(trained(model))
        return values[len(seen) - 1]

    model = adapted(dropout=0.1)
    history = make(tmp_path, validate=validate, select="best", validate_every=2).train(model, phase="train")
    assert history.validations == [(2, 0.3), (4, 0.9), (6, 0.9), (8, 0.1)]
    assert (history.best, history.best_step) == (0.9, 4)
    assert equal(trained(model), seen[1])
    assert [line["validation"] for line in log(tmp_path) if "validation" in line] == values
    other = adapted(dropout=0.1)
    make(tmp_path / "last").train(other, phase="train")
    assert equal(trained(other), seen[3])  # the same as without validation


def test_validation_is_once_an_epoch_by_default_and_at_the_end(tmp_path: Path) -> None:
    history = make(tmp_path, validate=lambda model: 1.0, epochs=1.5).train(adapted(), phase="train")
    assert [step for step, _ in history.validations] == [4, 6]


def test_a_signal_stops_after_the_step_and_the_same_call_goes_on(tmp_path: Path) -> None:
    def stop(model: nn.Module, step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGUSR1)

    undisturbed = adapted(dropout=0.1)
    make(tmp_path / "undisturbed").train(undisturbed, phase="train", hooks=[Counter()])
    handler = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Interrupted, match=r"Stopped after step 5 of phase train\. The same command goes on\."):
        make(tmp_path / "stopped").train(adapted(dropout=0.1), phase="train", hooks=[Counter(stop)])
    assert signal.getsignal(signal.SIGUSR1) == handler
    assert (tmp_path / "stopped" / "checkpoints" / "train-5").is_dir()
    model, hook = adapted(dropout=0.1), Counter()
    history = make(tmp_path / "stopped").train(model, phase="train", hooks=[hook])
    assert hook.steps[0] == ("before", 5)
    assert equal(trained(model), trained(undisturbed))
    assert history.steps == 8
    assert [line["step"] for line in log(tmp_path / "stopped")] == list(range(1, 9))


def test_a_signal_after_the_last_step_is_not_lost(tmp_path: Path) -> None:
    def validate(model: nn.Module) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    trainer = make(tmp_path, validate=validate, validate_every=8)
    with pytest.raises(Interrupted, match=r"Stopped after phase train\."):
        trainer.train(adapted(), phase="train")
    assert make(tmp_path).train(adapted(), phase="train").steps == 8  # finished: loaded


@pytest.mark.parametrize("name", ["lora", "bola"])
def test_activation_checkpointing_changes_no_gradient(tmp_path: Path, name: str) -> None:
    found, counts = [], []
    for enabled in (False, True):
        model, calls = adapted(name, dropout=0.1), Mock(return_value=None)
        model.get_base_model().model.layers[0].input_layernorm.register_forward_hook(calls)
        make(tmp_path / str(enabled), gradient_checkpointing=enabled).train(model, phase="train")
        counts.append(calls.call_count)
        found.append(trained(model))
        assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0]) < 1e-6
    assert counts[1] == 2 * counts[0]  # each layer is computed again in backward


def test_bf16_is_autocast_and_the_trained_values_stay_float32(tmp_path: Path) -> None:
    kinds = set()
    model = adapted("bola", dtype=torch.bfloat16)
    layer = model.get_base_model().model.layers[0].mlp.down_proj
    layer.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    history = make(tmp_path, mixed_precision="bf16").train(model, phase="train")
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in trained(model).values()} == {torch.float32}
    assert all(math.isfinite(loss) for loss in history.losses)


def test_a_whole_model_can_be_trained(tmp_path: Path) -> None:
    model = tiny_llama()
    before = trained(model)
    make(tmp_path, optimizer="rmsprop").train(model, phase="train")
    assert all(not torch.equal(before[name], value) for name, value in trained(model).items())


@pytest.mark.parametrize("name", ["", "../escape", "a b", "-x"])
def test_a_phase_s_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"phase's name is letters, digits.*Got"):
        make(tmp_path).train(adapted(), phase=name)


def test_best_needs_a_validation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"select=best needs a validation metric: set training\.validation_rows"):
        make(tmp_path, select="best")


def test_rows_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no training rows\. Check task\.data_dir"):
        make(tmp_path, count=0)


def test_something_to_train_is_needed(tmp_path: Path) -> None:
    model = tiny_llama().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        make(tmp_path).train(model, phase="train")


def test_a_finished_phase_of_another_adapter_is_refused(tmp_path: Path) -> None:
    make(tmp_path).train(adapted("lora"), phase="train")
    with pytest.raises(ValueError, match=r"phases/train does not fit the model: .* has shape .*remove it, or choose"):
        make(tmp_path).train(adapted("bola"), phase="train")


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    def stop(model: nn.Module, step: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        make(tmp_path).train(adapted(), phase="train", hooks=[Counter(stop)])
    with pytest.raises(ValueError, match=r"train-1 was written by another run: .*'seed': 0.*This one is .*'seed': 1"):
        make(tmp_path, seed=1).train(adapted(), phase="train")
