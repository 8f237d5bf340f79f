"""One optimizer batch has one gradient, however it is cut, padded and shared."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.training.tiny import adapted, rows, tiny_llama, trained
from transformers import (
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from tombola.training import AcceleratedTrainer, Settings

BUDGETS = {"16 x 1": 1, "some x a few": 60, "1 x 16": 100_000}


def gradients(model: torch.nn.Module, data: list[dict[str, Any]], folder: Path, **options: Any) -> dict[str, Any]:
    settings = Settings(batch_size=16, token_budget=options.pop("token_budget", 100_000))
    options = {"padding_side": "right", "pad_token_id": 0, **options}
    trainer = AcceleratedTrainer(settings=settings, rows=data, run_dir=folder, **options)
    return trainer.gradients(model, batches=1)


def reference(model: torch.nn.Module, data: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Row by row, without padding, cutting or keeping of logits: the mean over all predicted tokens."""
    total, terms = torch.zeros((), dtype=torch.float64), 0
    for row in data:
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        targets = torch.tensor(row["labels"][1:])
        total = total + F.cross_entropy(logits, targets, reduction="sum", ignore_index=-100)
        terms += int((targets != -100).sum())
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(total / terms, [model.get_parameter(name) for name in names])
    return dict(zip(names, found, strict=True))


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def moved(name: str) -> torch.nn.Module:
    """An adapted float64 model whose adapter is not at its zero start, where half the gradients vanish."""
    model = adapted(name, dtype=torch.float64).double()
    with torch.no_grad():
        for value in trained(model):
            model.get_parameter(value).add_(0.1 * torch.randn_like(model.get_parameter(value)))
    return model


@pytest.fixture(params=["lora", "bola"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return moved(request.param)


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_cut_of_a_batch_has_the_reference_gradient(model: torch.nn.Module, tmp_path: Path, side: str) -> None:
    data = rows(16)
    expected = reference(model, data)
    assert max(float(value.abs().max()) for value in expected.values()) > 1e-3
    for cut, budget in BUDGETS.items():
        found = gradients(model, data, tmp_path, token_budget=budget, padding_side=side)
        assert largest_difference(found, expected) < 1e-12, cut


def test_a_model_that_cannot_leave_logits_out_has_the_same_gradient(tmp_path: Path, monkeypatch: Any) -> None:
    data, model = rows(16), moved("lora")
    expected = gradients(model, data, tmp_path)
    monkeypatch.setattr("tombola.training.gradients.takes_logits_to_keep", lambda model: False)
    assert largest_difference(gradients(model, data, tmp_path), expected) < 1e-12


@pytest.mark.parametrize("labels", [3, 1])
@pytest.mark.parametrize("family", ["llama", "roberta", "vit"])
def test_rows_with_one_label_have_one_gradient_too(tmp_path: Path, family: str, labels: int) -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    data: list[dict[str, Any]] = [{**row, "label": i % 3} for i, row in enumerate(rows(16))]
    if labels == 1:
        data = [{**row, "label": float(row["label"])} for row in data]
    net: torch.nn.Module
    if family == "llama":
        net = LlamaForSequenceClassification(
            tiny_llama().config.__class__(**small, vocab_size=64, num_labels=labels, pad_token_id=0)
        )
    elif family == "roberta":
        net = RobertaForSequenceClassification(RobertaConfig(**small, vocab_size=64, num_labels=labels, pad_token_id=0))
    else:
        net = ViTForImageClassification(ViTConfig(**small, image_size=32, patch_size=16, num_labels=labels))
        data = [{"pixel_values": torch.randn(3, 32, 32, dtype=torch.float64), "label": row["label"]} for row in data]
    for row in data:
        row.pop("labels", None)
    net = net.double().eval()
    found = [gradients(net, data, tmp_path, token_budget=budget) for budget in BUDGETS.values()]
    assert largest_difference(found[0], found[2]) < 1e-12
    assert largest_difference(found[1], found[2]) < 1e-12
    assert max(float(value.abs().max()) for value in found[0].values()) > 1e-3


def test_gradients_are_a_mean_over_batches_and_change_nothing(tmp_path: Path) -> None:
    model, data = moved("lora"), rows(32)
    before, generator = trained(model), torch.get_rng_state()
    trainer = AcceleratedTrainer(
        settings=Settings(batch_size=16), rows=data, run_dir=tmp_path, pad_token_id=0, padding_side="right"
    )
    both = trainer.gradients(model, batches=2)
    first = trainer.gradients(model, batches=1)
    assert largest_difference(both, first) > 1e-5
    drawn = [trainer.feed.draw("gradients", step) for step in range(2)]
    parts = [reference(model, [data[i] for turn in part.turns for i in turn]) for part in drawn]
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}
    assert largest_difference(both, mean) < 1e-12
    assert largest_difference(before, trained(model)) == 0
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(generator, torch.get_rng_state())


def test_no_batch_is_refused(tmp_path: Path) -> None:
    trainer = AcceleratedTrainer(settings=Settings(), rows=rows(4), run_dir=tmp_path, pad_token_id=0)
    with pytest.raises(ValueError, match=r"at least 1 batch\. Got 0"):
        trainer.gradients(moved("lora"), batches=0)
