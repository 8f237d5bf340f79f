"""transformers' own Trainer: a run that is resumed ends with the bits of one that is not."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.adapters.tiny_models import WORDS, bola, tiny
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, set_seed

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning", "ignore:.pin_memory")


class Words(Dataset):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        words = torch.randint(0, WORDS, (6,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "labels": words}


def trainer(folder: Path) -> Trainer:
    set_seed(0)
    model = bola(tiny("llama", attention_dropout=0.1), target_modules=["q_proj", "down_proj"], dropout=0.1)
    settings = TrainingArguments(
        str(folder), max_steps=6, per_device_train_batch_size=4, learning_rate=0.01, save_steps=3, logging_steps=1,
        use_cpu=True, seed=0, report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    return Trainer(model, settings, train_dataset=Words())


def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(tmp_path):
    whole = trainer(tmp_path / "run")
    whole.train()
    whole.save_model(str(tmp_path / "whole"))
    first, last = whole.state.log_history[0]["loss"], whole.state.log_history[-2]["loss"]
    assert last < first
    resumed = trainer(tmp_path / "run")
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    resumed.save_model(str(tmp_path / "resumed"))
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "resumed"))
    halfway = load_file(tmp_path / "run" / "checkpoint-3" / "adapter_model.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(one[key], halfway[key]) for key in one)
    assert isinstance(PeftModel.from_pretrained(tiny("llama"), str(tmp_path / "whole")), PeftModel)
