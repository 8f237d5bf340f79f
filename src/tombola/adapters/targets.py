"""Layers adapted when a config names none: those of the papers, under transformers 5's names.

BoLA adapts the queries and keys of encoders, and the queries, keys, values, up- and down-projections of decoders
(BoLA, tables 4 to 6). Phi-3 fuses its projections; ViT's are `q_proj` and `k_proj` since transformers 5.
"""

_DECODER = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
_PHI3 = ["qkv_proj", "gate_up_proj", "down_proj"]
_BERT = ["query", "key"]
_IMAGES = ["q_proj", "k_proj"]

DEFAULT_TARGETS: dict[str, list[str]] = {
    "llama": _DECODER,
    "mistral": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "gemma": _DECODER,
    "gemma2": _DECODER,
    "olmo2": _DECODER,
    "smollm3": _DECODER,
    "phi3": _PHI3,
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "deberta-v2": ["query_proj", "key_proj"],
    "distilbert": ["q_lin", "k_lin"],
    "vit": _IMAGES,
    "deit": _IMAGES,
    "beit": _IMAGES,
    "dinov2": _IMAGES,
    "clip": _IMAGES,
    "clip_vision_model": _IMAGES,
}
