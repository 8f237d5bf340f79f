"""What `scripts/bench.py` measures: one small frozen decoder, and adapters of equal size on it."""

import copy
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, ShiraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaModel

import tombola

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
RANK, WIDTH, INNER, BLOCK = 32, 576, 1536, 16
SHAPES = {
    "q_proj": (576, 576),
    "k_proj": (192, 576),
    "v_proj": (192, 576),
    "up_proj": (1536, 576),
    "down_proj": (576, 1536),
}
REFERENCE, SHIRA, BOLA = f"LoRA r={RANK}", f"SHiRA r={RANK}", f"BoLA k={RANK}"
ELEMENT, BLOCKS = "SparseDelta, elements", f"SparseDelta, blocks of {BLOCK}"
MASKED, PARTITIONED = f"Partial-LoRA r={RANK}, half kept", f"PiLoRA r={RANK} and 2, half dominant"


def smollm2_shape(layers: int, dtype: torch.dtype) -> nn.Module:
    """Frozen decoder layers with SmolLM2-135M's sizes; the vocabulary, which no step here reads, is small."""
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=64, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    net: Any = LlamaModel(config)
    return net.to(dtype).requires_grad_(False)


def candidates(base: nn.Module, dtype: torch.dtype) -> dict[str, nn.Module]:
    """What is measured, by name; all share the frozen weights.

    The sparse adapters, BoLA and LoRA have the same trainable number; Partial-LoRA has half of it, PiLoRA about 0.8.
    """
    lora = LoraConfig(r=RANK, lora_alpha=64, target_modules=TARGETS)
    dora = LoraConfig(r=RANK, lora_alpha=64, target_modules=TARGETS, use_dora=True)
    bola = tombola.BolaConfig(target_modules=TARGETS, k=RANK, in_divs=24, out_divs=24, alpha=4.0)
    tiles = tombola.SparseDeltaConfig(
        target_modules=TARGETS, count=counts(BLOCK**2), structure="block", block=BLOCK, delta_init="kaiming"
    )
    masked = tombola.MaskedLoraConfig(target_modules=TARGETS, r=RANK, lora_alpha=64, kept_rows=0.5, kept_cols=0.5)
    partitioned = tombola.PartitionedLoraConfig(
        target_modules=TARGETS, r=RANK, r_minor=2, lora_alpha=64, lora_dropout=0.0, dominant=0.5
    )
    built = {
        "frozen floor": shared(base),
        REFERENCE: adapted(base, lora),
        BOLA: adapted(base, bola),
        f"{BOLA}, additive": listened_to(adapted(base, bola)),
        BLOCKS: adapted(base, tiles),
        ELEMENT: adapted(base, tombola.SparseDeltaConfig(target_modules=TARGETS, count=counts(1))),
        MASKED: adapted(base, masked),
        PARTITIONED: adapted(base, partitioned),
        SHIRA: adapted(base, ShiraConfig(r=RANK, target_modules=TARGETS)),
        "DoRA r=32": adapted(base, dora),
    }
    if dtype != torch.float32:
        built["LoRA r=32, factors in bf16"] = adapted(base, lora, autocast_adapter_dtype=False)
    return built


def counts(unit: int) -> dict[str, int]:
    """LoRA's number for each layer, as the nearest whole number of units."""
    return {name: round(RANK * (rows + columns) / unit) * unit for name, (rows, columns) in SHAPES.items()}


def adapted(base: nn.Module, config: PeftConfig, **options: Any) -> nn.Module:
    """An adapter that has moved a little: at its start it is zero, and some kernels are quicker on zeros."""
    net = get_peft_model(shared(base), config, **options)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and not any(
            part in name for part in ("lora_A", "lora_a", "minor_a", "magnitude", "bola_scores")
        ):
            parameter.data.copy_(1e-3 * torch.randn(parameter.shape, generator=generator))
    return net.train()


def listened_to(net: nn.Module) -> nn.Module:
    """With a hook on every base layer, whose weight BoLA then leaves alone: it adds the delta's own product."""
    for name, module in net.named_modules():
        if name.endswith("base_layer"):
            module.register_forward_hook(lambda *_: None)
    return net


def shared(base: nn.Module) -> nn.Module:
    """A model of its own with the base model's parameters."""
    return copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})
