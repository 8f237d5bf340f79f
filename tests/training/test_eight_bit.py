"""8-bit moments, where bitsandbytes is installed; elsewhere the refusal."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.tiny import rows, tiny_llama, trained
from torch import nn

from tombola.training import AcceleratedTrainer, Interrupted, Settings, eight_bit


def make(folder: Path, optimizer: str = "adamw_8bit", **options: Any) -> AcceleratedTrainer:
    settings = Settings(
        optimizer=optimizer, epochs=2, batch_size=8, token_budget=64, lr=3e-3, checkpoint_every=2, weight_decay=0.1
    )
    return AcceleratedTrainer(settings=settings, rows=rows(), run_dir=folder, pad_token_id=0, **options)


def test_without_bitsandbytes_it_is_refused_before_training(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(eight_bit, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes, which is not installed\. Install tombola\[quantised\]"):
        make(tmp_path)


@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_zero_is_refused(kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(eight_bit, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match=f"does not go with launch={kind}: .*Set launch=ddp"):
        eight_bit.check_eight_bit(kind)
    eight_bit.check_eight_bit("ddp")


def large(dtype: torch.dtype) -> nn.Module:
    """Two matrices of more than the 4096 entries from which on moments have 8 bits, one that has fewer."""
    model = tiny_llama().requires_grad_(False)
    layer = model.model.layers[0]
    for weight in (layer.mlp.up_proj.weight, layer.self_attn.q_proj.weight):
        weight.requires_grad_(True)
    model.lm_head.weight = nn.Parameter(torch.randn(64, 40).repeat(1, 2)[:, :40].clone())
    layer.mlp.gate_proj = nn.Sequential(nn.Linear(40, 120, bias=False), nn.Linear(120, 51, bias=False)).to(dtype)
    return model


class StopAt:
    def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_follows_adamw_and_resumes_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    pytest.importorskip("bitsandbytes")

    def model() -> nn.Module:
        net = large(torch.float32)
        for parameter in net.parameters():
            parameter.data = parameter.data.to(dtype)
        return net

    start, whole, resumed, exact = trained(model()), model(), model(), model()
    make(tmp_path / "whole").train(whole, phase="train", keep_optimizer=True)
    with pytest.raises(Interrupted):
        make(tmp_path / "stopped").train(model(), phase="train", hooks=[StopAt()])
    make(tmp_path / "stopped").train(resumed, phase="train")
    make(tmp_path / "exact", "adamw").train(exact, phase="train")
    for name, value in trained(whole).items():
        assert torch.equal(value, trained(resumed)[name]), name
        moved, expected = (value - start[name]).float(), (trained(exact)[name] - start[name]).float()
        assert float((moved - expected).norm() / expected.norm()) < 0.2, name
    state = make(tmp_path / "whole").optimizer_state("train")
    assert {value.dtype for path, value in state.items() if path.startswith("state1")} >= {torch.uint8}
