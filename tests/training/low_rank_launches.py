"""The low-rank tuners, and PiLoRA's hits, under any launch: `[torch.distributed.run] low_rank_launches.py KIND FOLDER`.

Writes FOLDER/results.safetensors with tensors named `job|tensor`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from safetensors.torch import save_file
from tests.training.tiny import adapted, rows, tiny_llama, trained
from torch import Tensor

import tombola
from tombola.methods.pilora_importance import Importance, counted
from tombola.training import AcceleratedTrainer, Settings, leave, zero

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 6,
    "token_budget": 48,
    "lr": 3e-3,
    "weight_decay": 0.1,
    "seed": 5,
}
TARGETS = ["q_proj", "up_proj"]
CONFIGS = {  # odd numbers, which two ranks do not divide
    "rows and columns": tombola.MaskedLoraConfig(target_modules=TARGETS, r=3, kept_rows=0.3, kept_cols=0.7),
    "entries": tombola.MaskedLoraConfig(
        target_modules=TARGETS, r=3, kept_rows=0.3, kept_cols=0.7, granularity="element"
    ),
    "two groups": tombola.PartitionedLoraConfig(target_modules=TARGETS, r=3, r_minor=1, dominant=0.45),
    "directions": tombola.LoraDashConfig(target_modules=TARGETS, r=3, directions=5),
}


def trainer(kind: str, folder: Path) -> AcceleratedTrainer:
    return AcceleratedTrainer(
        settings=Settings(**SETTINGS), rows=rows(), run_dir=folder, pad_token_id=0, launch={"kind": kind}
    )


def tuned(kind: str, folder: Path, config: Any) -> dict[str, Tensor]:
    model = get_peft_model(tiny_llama(), config)
    trainer(kind, folder).train(model, phase="one")
    with torch.no_grad():
        logits = model(input_ids=torch.arange(3, 10)[None]).logits
    return {**trained(model), "logits": logits}


def hits(kind: str, folder: Path) -> dict[str, Tensor]:
    """What PiLoRA's first stage counts, from gradients that ranks and micro-batches have added up."""
    importance = Importance(adapted("lora"), every=3)
    trainer(kind, folder).train(importance.model, phase="importance", hooks=[importance])
    assert importance.checks == 4
    seen = {path: counted(layer) for path, layer in importance.layers.items()}
    return {f"{path}.{name}": one[name].float() for path, one in seen.items() for name in ("hits", "sums")}


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    zero.PERSISTENT_ELEMENTS = 0  # every parameter of the tiny model is really partitioned
    results = {name: tuned(kind, folder / name, config) for name, config in CONFIGS.items()}
    results["hits"] = hits(kind, folder / "hits")
    if int(os.environ.get("RANK", 0)) == 0:
        flat = {f"{job}|{name}": t.contiguous() for job, tensors in results.items() for name, t in tensors.items()}
        save_file(flat, folder / "results.safetensors")


if __name__ == "__main__":
    main()
    leave()
