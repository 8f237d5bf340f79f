"""The memory estimate: against the tensors that autograd really keeps, and by hand."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import tombola
from tombola.models.architecture import AUTO_CLASS, head_options, net_config
from tombola.models.counts import Inputs
from tombola.models.memory import STATE_BYTES, Load, Memory, activation_bytes, estimate, input_bytes, layer_bytes
from tombola.training import Settings
from tombola.training.optimizer import build_optimizer

ROWS, LENGTH = 2, 48
QKVUD = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
CLIP = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def row_tokens(model: dict[str, Any]) -> int:
    values = model["architecture"]
    return (values["image_size"] // values["patch_size"]) ** 2 + 1 if model["role"] == "image_encoder" else LENGTH


def kept_bytes(model: dict[str, Any], layers: int, adapt, checkpointing: bool = False) -> int:
    """Bytes of distinct storages, parameters and buffers aside, that autograd keeps between forward and backward."""
    values = {**model["architecture"], "num_hidden_layers": layers}
    if "vocab_size" in values:
        values["vocab_size"] = 256  # of no matter to a layer
    if "attention_probs_dropout_prob" in values:
        values["attention_probs_dropout_prob"] = 0.0  # torch's CPU has no fused attention with dropout
    decoder = model["role"] == "decoder"
    head = {} if decoder else head_options(model, "classify", 2)
    config = net_config(model | {"architecture": values}, head)
    net = adapt(AUTO_CLASS[model["role"]].from_config(config, dtype=getattr(torch, model["dtype"]))).train()
    if checkpointing:
        net.config.use_cache = False
        net.get_base_model().activation_checkpointing_enable()
        net.enable_input_require_grads()
    if model["role"] == "image_encoder":
        inputs = {"pixel_values": torch.randn(ROWS, 3, values["image_size"], values["image_size"])}
    else:
        inputs = {"input_ids": torch.randint(5, 200, (ROWS, LENGTH))}
    own = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    labels = inputs["input_ids"] if decoder else torch.zeros(ROWS, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = net(**inputs, labels=labels).loss
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def lora(targets: list[str], **fields: Any):
    return lambda net: get_peft_model(net, LoraConfig(r=4, target_modules=targets, **fields))


def bola(net):
    return get_peft_model(net, tombola.BolaConfig(target_modules=QKVUD, k=4, in_divs=24, out_divs=24))


def load(inputs: tuple[int, int], **fields: Any) -> Load:
    usual = {"frozen": 1, "trainable": 1, "half": 0, "tokens": 1, "row_tokens": LENGTH, "cast": False, "dropout": False}
    return Load(**usual | fields, inputs=Inputs(*inputs))


# model, dtype, how it is trained, what a layer's trained linear layers read (each, shared), the adapter's ways
SMOL, MINI, VIT = (4 * 576 + 1536, 2 * 576 + 1536), (2 * 384, 384), (4 * 768 + 768 + 3072, 768 + 768 + 3072)
CASES = {
    "LoRA in float32": ("smollm2_135m", "float32", lora(QKVUD), SMOL, {}),
    "LoRA on bfloat16": ("smollm2_135m", "bfloat16", lora(QKVUD), SMOL, {"cast": True}),
    "LoRA with dropout": ("smollm2_135m", "float32", lora(QKVUD, lora_dropout=0.1), SMOL, {"dropout": True}),
    "BoLA on bfloat16": ("smollm2_135m", "bfloat16", bola, SMOL, {}),
    "BERT": ("minilm", "float32", lora(["query", "key"]), MINI, {}),
    "CLIP": ("clip_vit_b32", "float32", lora(CLIP), VIT, {}),
    "everything": ("smollm2_135m", "float32", lambda net: net, SMOL, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_keeps_what_the_estimate_says(model_of, case):
    name, dtype, adapt, inputs, ways = CASES[case]
    model = model_of(name, dtype=dtype)
    really = kept_bytes(model, 2, adapt) - kept_bytes(model, 1, adapt)
    tokens, computing = row_tokens(model), torch.finfo(getattr(torch, dtype)).bits // 8
    a_token = layer_bytes(model, tokens, computing) + input_bytes(load(inputs, **ways), computing)
    assert really / (ROWS * tokens * a_token) == pytest.approx(1, abs=1 / 6)


def test_under_checkpointing_a_layer_keeps_its_input(model_of):
    model = model_of("smollm2_135m")
    really = kept_bytes(model, 2, lora(QKVUD), True) - kept_bytes(model, 1, lora(QKVUD), True)
    assert really == ROWS * LENGTH * 576 * 4


def test_activations_are_tokens_times_layers_and_logits(model_of):
    values = {"num_hidden_layers": 4, "hidden_size": 10, "intermediate_size": 30, "num_attention_heads": 2}
    model = model_of("llama3_8b", architecture=values | {"num_key_value_heads": 1, "vocab_size": 100})
    layer = 2 * 10 * 4 + (2 * 10 + 2 * 5 + 3 * 30) * 2
    assert layer_bytes(model, 7, 2) == layer
    step = load((4 * 40, 4 * 20), tokens=6)
    logits = 100 * (2 + 8)
    assert activation_bytes(model, step, 2, False) == 6 * (4 * (layer + 20 * 2) + logits)
    assert activation_bytes(model, step, 2, True) == 6 * (4 * 10 * 2 + layer + 20 * 2 + logits)


def test_a_head_alone_keeps_no_layer(model_of):
    assert activation_bytes(model_of("roberta_base"), load((0, 0)), 4, False) == 0


def test_attention_that_is_not_fused_grows_with_the_row(model_of):
    deberta = model_of("deberta_v3_base")
    assert layer_bytes(deberta, 100, 4) - layer_bytes(deberta, 50, 4) == 3 * 12 * 50 * 4


@pytest.mark.parametrize(
    ("kind", "split"),
    [("single", (1, 1, 1)), ("ddp", (1, 1, 1)), ("zero2", (1, 4, 4)), ("zero3", (4, 4, 4))],
)
def test_each_stage_splits_its_parts_over_the_ranks(model_of, training, kind, split):
    model, launch = model_of("llama3_8b"), {"kind": kind, "nproc": 4}
    made = estimate(model, training, launch, load((0, 0), frozen=8000, trainable=400))
    assert (made.weights, made.gradients, made.optimizer) == (
        (8000 * 2 + 400 * 4) // split[0],
        400 * 4 // split[1],
        400 * 8 // split[2],
    )


STATES = {"adamw": 8, "adamw_8bit": 2 + 8 / 256, "adamw_per_entry": 12, "rmsprop": 4, "sgd": 0}


@pytest.mark.parametrize("optimizer", STATES)
@pytest.mark.parametrize("half", [0, 512])
def test_the_optimizer_keeps_its_states(model_of, training, optimizer, half):
    step = load((0, 0), trainable=512, half=half)
    made = estimate(model_of("llama3_8b"), training | {"optimizer": optimizer}, {"kind": "single", "nproc": 1}, step)
    assert made.optimizer == STATES[optimizer] * 512


def test_bfloat16_values_and_gradients_are_half_as_large(model_of, training):
    step = load((0, 0), frozen=0, trainable=100, half=60)
    made = estimate(model_of("llama3_8b"), training, {"kind": "single", "nproc": 1}, step)
    assert (made.weights, made.gradients) == (60 * 2 + 40 * 4, 60 * 2 + 40 * 4)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_per_entry", "rmsprop", "sgd"])
def test_an_optimizer_really_keeps_so_much(optimizer):
    parameter = torch.nn.Parameter(torch.zeros(64, 64))
    made = build_optimizer({"weight": parameter}, Settings(optimizer=optimizer))
    parameter.grad = torch.ones_like(parameter)
    made.step()
    kept = sum(value.nbytes for value in made.state[parameter].values() if value is not None and value.ndim)
    assert kept == STATE_BYTES[optimizer] * parameter.numel()


def test_full_finetuning_computes_in_float32_unless_autocast(model_of, training):
    model, launch = model_of("llama3_8b"), {"kind": "single", "nproc": 1}
    full = load((10, 10), frozen=0)
    whole = estimate(model, training, launch, full).activations
    autocast = estimate(model, training | {"mixed_precision": "bf16"}, launch, full).activations
    assert whole == activation_bytes(model, full, 4, False) > autocast == activation_bytes(model, full, 2, False)


def test_the_total_is_the_sum():
    assert Memory(1, 20, 300, 4000).total == 4321
