"""Dense weight gradients, against autograd's own of the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.training.test_gradients import largest_difference
from tests.training.tiny import adapted, rows, tiny_llama, trained
from torch import Tensor, nn

from tombola.training import AcceleratedTrainer, Settings

DATA = rows(20)


def make(folder: Path, **settings: Any) -> AcceleratedTrainer:
    settings = {"batch_size": 8, "token_budget": 40, "epochs": 1, "seed": 3, **settings}
    return AcceleratedTrainer(settings=Settings(**settings), rows=DATA, run_dir=folder, pad_token_id=0)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    ends = ("q_proj", "v_proj", "up_proj")
    return {path: module for path, module in model.named_modules() if path.endswith(ends)}


def dense(trainer: AcceleratedTrainer, model: nn.Module, **options: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def see(path: str, gradient: Tensor) -> None:
        assert path not in found
        found[path] = gradient.clone()

    trainer.dense_gradients(model, layers_of(model), see, **{"phase": "train", "step": 0, **options})
    return found


def reference(model: nn.Module, numbers: list[int]) -> dict[str, Tensor]:
    """Autograd's gradient of the mean token loss, row by row, with respect to the weights themselves."""
    weights = {path: getattr(layer, "base_layer", layer).weight for path, layer in layers_of(model).items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    total, terms = torch.zeros((), dtype=torch.float64), 0
    for number in numbers:
        logits = model(input_ids=torch.tensor([DATA[number]["input_ids"]])).logits[0, :-1]
        targets = torch.tensor(DATA[number]["labels"][1:])
        total = total + nn.functional.cross_entropy(logits, targets, reduction="sum", ignore_index=-100)
        terms += int((targets != -100).sum())
    found = torch.autograd.grad(total / terms, list(weights.values()))
    for weight in weights.values():
        weight.requires_grad_(False)
    return dict(zip(weights, found, strict=True))


def moved(name: str) -> nn.Module:
    """A float64 model with an adapter that is not at its zero start."""
    net = tiny_llama()
    targets = ["q_proj", "v_proj", "up_proj"]
    model: nn.Module = (
        adapted("bola") if name == "bola" else get_peft_model(net, LoraConfig(r=3, target_modules=targets))
    )
    model = model.double()
    with torch.no_grad():
        for value in trained(model):
            model.get_parameter(value).add_(0.1 * torch.randn_like(model.get_parameter(value)))
    return model


def drawn(trainer: AcceleratedTrainer, step: int) -> list[int]:
    return [row for turn in trainer.feed.draw("train", step).turns for row in turn]


@pytest.mark.parametrize("name", ["lora", "bola"])
def test_it_is_the_gradient_of_the_weight(tmp_path: Path, name: str) -> None:
    model, trainer = moved(name), make(tmp_path)
    for step in (0, 2):
        expected = reference(model, drawn(trainer, step))
        found = dense(trainer, model, step=step)
        assert {gradient.dtype for gradient in found.values()} == {torch.float64}
        assert largest_difference(found, expected) < 1e-12
        assert min(float(value.abs().max()) for value in expected.values()) > 1e-4


def test_the_first_rows_are_a_batch_of_their_own(tmp_path: Path) -> None:
    model, trainer = moved("lora"), make(tmp_path)
    first = trainer.feed._rows("train", 1, ())[:3]
    assert largest_difference(dense(trainer, model, step=1, rows=3), reference(model, first)) < 1e-12


def test_outside_a_phase_dropout_draws_from_a_generator_of_its_own(tmp_path: Path) -> None:
    model, trainer = adapted(dropout=0.5).train(), make(tmp_path)
    before = torch.get_rng_state()
    first = dense(trainer, model)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert largest_difference(dense(trainer, model), first) == 0
    assert model.training


class Look:
    """A hook that takes dense gradients in the midst of a phase."""

    def __init__(self, trainer: AcceleratedTrainer) -> None:
        self.trainer = trainer
        self.seen: list[dict[str, Tensor]] = []

    def before_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        kept = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        self.seen.append(dense(self.trainer, model, step=step))
        assert all(torch.equal(kept[name], model.get_parameter(name).grad) for name in kept)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_looking_changes_nothing(tmp_path: Path, checkpointing: bool) -> None:
    found = []
    for look in (False, True):
        model, trainer = adapted(dropout=0.1), make(tmp_path / str(look), gradient_checkpointing=checkpointing)
        hook = Look(trainer)
        trainer.train(model, phase="train", hooks=[hook] if look else [])
        found.append(trained(model))
        assert len(hook.seen) == (3 if look else 0)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_inside_a_phase_it_is_the_gradient_of_the_moment(tmp_path: Path) -> None:
    model = moved("lora")
    trainer = make(tmp_path, max_steps=1)
    hook = Look(trainer)
    expected = reference(model, drawn(trainer, 0))
    trainer.train(model, phase="train", hooks=[hook])
    assert largest_difference(hook.seen[0], expected) < 1e-12


def test_autocast_gives_float32_of_the_half_product(tmp_path: Path) -> None:
    model = adapted(dtype=torch.bfloat16)
    found = dense(make(tmp_path, mixed_precision="bf16"), model)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert all(torch.equal(gradient, gradient.bfloat16().float()) for gradient in found.values())
    exact = dense(make(tmp_path), adapted())
    for path, gradient in found.items():
        assert float((gradient - exact[path]).norm() / exact[path].norm()) < 0.05


def test_what_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    trainer, model = make(tmp_path), adapted()
    with pytest.raises(ValueError, match="was given no layer"):
        trainer.dense_gradients(model, {}, lambda path, gradient: None, phase="train", step=0)
    with pytest.raises(ValueError, match=r"at least 1 row\. Got rows=0"):
        dense(trainer, model, rows=0)
