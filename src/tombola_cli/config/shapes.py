"""Names and shapes of a model's linear layers from the plain values of its config, as transformers 5.23 names them.

With these a block grid or a target module is checked in milliseconds; a test compares them with the real modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Shape = tuple[int, int]  # (out, in), as `nn.Linear.weight.shape`
EVERY_LINEAR = "all-linear"  # PEFT's word for every linear layer but the head


def layer_shapes(architecture: Mapping[str, Any], role: str) -> dict[str, Shape | list[Shape]]:
    """Leaf name -> (out, in) of the linear layers, without a newly made head; a list where one name has several shapes.

    Raises:
        ValueError: the `model_type` is none of those known here.
    """
    shapes: dict[str, list[Shape]] = {}
    for path, shape in linear_layers(architecture, role).items():
        known = shapes.setdefault(path.rpartition(".")[2], [])
        if shape not in known:
            known.append(shape)
    return {name: found[0] if len(found) == 1 else found for name, found in shapes.items()}


def linear_layers(architecture: Mapping[str, Any], role: str) -> dict[str, Shape]:
    """Module path -> (out, in), with the layers of block 0 standing for every block's.

    Raises:
        ValueError: the `model_type` is none of those known here.
    """
    kind = architecture["model_type"]
    if kind not in FAMILIES:
        raise ValueError(f"model.architecture.model_type={kind}: unknown layer names; known are {', '.join(FAMILIES)}")
    return FAMILIES[kind](architecture, role)


def targeted(targets: str | list[str], layers: Mapping[str, Shape]) -> dict[str, Shape]:
    """The layers that PEFT adapts for `targets`: a list of names or ends of paths, or one pattern over whole paths."""
    if targets == EVERY_LINEAR:
        return {path: shape for path, shape in layers.items() if path != "lm_head"}
    if isinstance(targets, str):
        return {path: shape for path, shape in layers.items() if _matches(targets, path)}
    return {path: shape for path, shape in layers.items() if any(names(target, path) for target in targets)}


def names(target: str, path: str) -> bool:
    """Whether one entry of `target_modules` means this layer; a block number in it means its block like any other."""
    same = re.sub(r"\.\d+\.", ".0.", target)
    return path == same or path.endswith(f".{same}")


def _matches(pattern: str, path: str) -> bool:
    # A pattern may pick out single blocks, so every plausible number is tried.
    numbers = range(128) if ".0." in path else range(1)
    return any(re.fullmatch(pattern, path.replace(".0.", f".{number}.")) for number in numbers)


def _llama(config: Mapping[str, Any], role: str) -> dict[str, Shape]:
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    attention = {
        "q_proj": (queries, width),
        "k_proj": (keys, width),
        "v_proj": (keys, width),
        "o_proj": (width, queries),
    }
    mlp = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
    return _block("model.layers.0", {"self_attn": attention, "mlp": mlp}) | _language_head(config, role)


def _phi3(config: Mapping[str, Any], role: str) -> dict[str, Shape]:
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    attention = {"qkv_proj": (queries + 2 * keys, width), "o_proj": (width, queries)}
    mlp = {"gate_up_proj": (2 * inner, width), "down_proj": (width, inner)}
    return _block("model.layers.0", {"self_attn": attention, "mlp": mlp}) | _language_head(config, role)


def _bert(config: Mapping[str, Any], role: str) -> dict[str, Shape]:
    width = config["hidden_size"]
    layers = _bert_layers("bert", config, ("query", "key", "value"))
    return {**layers, "bert.pooler.dense": (width, width)}


def _roberta(config: Mapping[str, Any], role: str) -> dict[str, Shape]:
    return _bert_layers("roberta", config, ("query", "key", "value"))  # its classifier has no pooler


def _deberta(config: Mapping[str, Any], role: str) -> dict[str, Shape]:
    width = config["hidden_size"]
    layers = _bert_layers("deberta", config, ("query_proj", "key_proj", "value_proj"))
    return {**layers, "pooler.dense": (width, width)}


def _vit(config: Mapping[str, Any], role: str) -> dict[str, Shape]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    attention = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (width, width))
    return _block("vit.layers.0", {"attention": attention, "mlp": {"fc1": (inner, width), "fc2": (width, inner)}})


def _clip_vision(config: Mapping[str, Any], role: str) -> dict[str, Shape]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    attention = dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), (width, width))
    mlp = {"fc1": (inner, width), "fc2": (width, inner)}
    return _block("vision_model.encoder.layers.0", {"self_attn": attention, "mlp": mlp})


def _bert_layers(stem: str, config: Mapping[str, Any], attention: tuple[str, ...]) -> dict[str, Shape]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    parts = {
        "attention.self": dict.fromkeys(attention, (width, width)),
        "attention.output": {"dense": (width, width)},
        "intermediate": {"dense": (inner, width)},
        "output": {"dense": (width, inner)},
    }
    return _block(f"{stem}.encoder.layer.0", parts)


def _block(stem: str, parts: Mapping[str, Mapping[str, Shape]]) -> dict[str, Shape]:
    return {f"{stem}.{part}.{name}": shape for part, layers in parts.items() for name, shape in layers.items()}


def _language_head(config: Mapping[str, Any], role: str) -> dict[str, Shape]:
    return {"lm_head": (config["vocab_size"], config["hidden_size"])} if role == "decoder" else {}


FAMILIES = {
    "llama": _llama,
    "qwen2": _llama,
    "phi3": _phi3,
    "bert": _bert,
    "roberta": _roberta,
    "deberta-v2": _deberta,
    "vit": _vit,
    "clip_vision_model": _clip_vision,
}
