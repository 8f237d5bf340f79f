"""A small Llama for adapters to move."""

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture
def llama() -> Callable[[], LlamaForCausalLM]:
    def make() -> LlamaForCausalLM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            config = LlamaConfig(
                vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                num_key_value_heads=1, pad_token_id=0,
            )  # fmt: skip
            return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture
def scramble() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Gives every trainable value a random one, as training would."""

    def fill(model: torch.nn.Module) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        return model

    return fill
