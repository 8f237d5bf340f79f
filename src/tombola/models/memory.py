"""Estimated peak memory of a training step on one GPU.

An estimate, for choosing a launch and a token budget: what is kept for backward follows from the architecture, what an
allocator adds does not. It is within a sixth of the tensors that autograd really keeps (tests/models/test_memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tombola.models.counts import Inputs

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FLOAT32 = 4
MAXIMA = 2 * FLOAT32 / 256  # 8-bit moments come in blocks of 256 with their largest number each
# What the optimizer keeps for each trained number: moments and ages in float32, whatever the number is in.
STATE_BYTES = {"adamw": 8, "adamw_8bit": 2 + MAXIMA, "adamw_per_entry": 12, "rmsprop": 4, "sgd": 0}
STAGE = {"single": 0, "ddp": 0, "zero2": 2, "zero3": 3}  # ZeRO: 2 splits gradients and optimizer, 3 the weights too


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the peak of a step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The four parts together."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Load:
    """What a step has to hold: numbers of parameters, and the tokens of one micro-batch on one rank."""

    frozen: int
    trainable: int
    half: int  # of the trainable ones those that are bfloat16, gradients too
    tokens: int
    row_tokens: int
    inputs: Inputs  # of the trained linear layers; none are: only the head is, and no layer keeps anything
    cast: bool  # the adapter reads a float32 copy, its own for each layer (PEFT's LoRA on a half base)
    dropout: bool  # the adapter keeps what dropout let through, for each layer
    quantised: int = 0  # of the frozen ones those that are held in four bits
    quantised_bytes: int = 0  # what they take


def estimate(model: Mapping[str, Any], training: Mapping[str, Any], launch: Mapping[str, Any], load: Load) -> Memory:
    """Peak bytes: weights in the model's dtype, what is trained in its own, each split as the ZeRO stage does."""
    stage, ranks = STAGE[launch["kind"]], launch["nproc"]
    frozen_bytes = BYTES[model["dtype"]] * (load.frozen - load.quantised) + load.quantised_bytes
    trained_bytes = FLOAT32 * (load.trainable - load.half) + BYTES["bfloat16"] * load.half
    computing = BYTES[model["dtype"]] if load.frozen else FLOAT32  # full fine-tuning trains in float32
    if training["mixed_precision"] == "bf16":
        computing = BYTES["bfloat16"]
    return Memory(
        weights=(frozen_bytes + trained_bytes) // (ranks if stage == 3 else 1),
        gradients=trained_bytes // (ranks if stage >= 2 else 1),
        optimizer=int(STATE_BYTES[training["optimizer"]] * load.trainable) // (ranks if stage >= 2 else 1),
        activations=activation_bytes(model, load, computing, bool(training["gradient_checkpointing"])),
    )


def activation_bytes(model: Mapping[str, Any], load: Load, computing: int, checkpointing: bool) -> int:
    """tokens * (layers * kept by a layer + inputs of the trained linear layers + logits).

    With checkpointing a layer keeps its own input alone, and one layer at a time is whole again in backward.
    """
    if not load.inputs.each:
        return 0
    layers = model["architecture"]["num_hidden_layers"]
    whole = layers * layer_bytes(model, load.row_tokens, computing) + input_bytes(load, computing)
    kept = layers * computing * model["architecture"]["hidden_size"] + whole // layers if checkpointing else whole
    return load.tokens * (kept + _logit_bytes(model, computing))


def layer_bytes(model: Mapping[str, Any], row_tokens: int, computing: int) -> int:
    """Bytes of one token that one layer keeps for backward whatever is trained in it; its attention is fused.

    Decoder: two norms' inputs in float32; query, key, value and attention's output; gate, its activation and up.
    Encoder: two norms' inputs and dropout's masks; the same of attention; the MLP before its activation, which
    quick_gelu (CLIP's, written out) keeps twice.
    Attention that is not fused (DeBERTa's) keeps three square matrices a head.
    """
    values = model["architecture"]
    hidden, middle, heads = values["hidden_size"], values["intermediate_size"], values["num_attention_heads"]
    if model["role"] == "decoder":
        head_width = values.get("head_dim") or hidden // heads
        keys = values.get("num_key_value_heads", heads) * head_width
        return 2 * hidden * FLOAT32 + (2 * heads * head_width + 2 * keys + 3 * middle) * computing
    square = 3 * heads * row_tokens if values["model_type"] == "deberta-v2" else 0
    copies = 2 if values["hidden_act"] == "quick_gelu" else 1
    return (7 * hidden + copies * middle + square) * computing


def input_bytes(load: Load, computing: int) -> int:
    """Bytes of one token that the trained linear layers of the whole model keep of what they read."""
    read = FLOAT32 * load.inputs.each if load.cast else computing * load.inputs.shared
    return read + (FLOAT32 * load.inputs.each if load.dropout else 0)


def _logit_bytes(model: Mapping[str, Any], computing: int) -> int:
    """A language model's logits, their float32 log-probabilities and the gradient of those."""
    return model["architecture"]["vocab_size"] * (computing + 2 * FLOAT32) if model["role"] == "decoder" else 0
