"""A tiny Llama, adapters for it and rows to train it on: what the tests of training share."""

import random
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import tombola


def tiny_llama() -> LlamaForCausalLM:
    """The feed-forward width is odd, so that some adapter tensors do not divide by two ranks."""
    torch.manual_seed(0)
    shape = {"hidden_size": 40, "intermediate_size": 51, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return LlamaForCausalLM(LlamaConfig(**shape, **heads, pad_token_id=0, bos_token_id=1, eos_token_id=2))


def adapter_config(name: str, dropout: float = 0.0) -> Any:
    if name == "bola":
        grid = {"k": 3, "in_divs": 4, "out_divs": 4}
        return tombola.BolaConfig(target_modules=["q_proj", "v_proj"], **grid, dropout=dropout)
    return LoraConfig(target_modules=["q_proj", "up_proj"], r=3, lora_dropout=dropout, task_type="CAUSAL_LM")


def adapted(name: str = "lora", dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> PeftModel:
    return get_peft_model(tiny_llama().to(dtype), adapter_config(name, dropout))


def rows(count: int = 32) -> list[dict[str, Any]]:
    """Rows of 3 to 19 tokens, the last two thirds of each labelled."""
    numbers = random.Random(7)
    made = []
    for _ in range(count):
        length = numbers.randrange(3, 20)
        ids = [numbers.randrange(3, 64) for _ in range(length)]
        made.append({"input_ids": ids, "labels": [-100] * (length // 3) + ids[length // 3 :]})
    return made


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the trainable values."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
