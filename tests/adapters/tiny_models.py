"""Random models of a few thousand weights, one a family, built as a user would: from a config."""

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from tombola import BolaConfig, SparseDeltaConfig
from tombola.adapters import BolaLinear, sparse_layers

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = 40
FAMILIES = ("llama", "roberta", "phi3", "vit")


def tiny(family: str, **changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "llama":  # non-square: k and v are (16, 32), up is (48, 32), down is (32, 48)
        return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, num_key_value_heads=2, **SIZES, **changes))
    if family == "phi3":
        return Phi3ForCausalLM(
            Phi3Config(vocab_size=WORDS, pad_token_id=0, eos_token_id=1, num_key_value_heads=2, **SIZES, **changes)
        )
    if family == "roberta":
        still = {
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }  # so that a step's loss can be compared
        sizes = {**SIZES, **still, "vocab_size": WORDS, "max_position_embeddings": 20, "num_labels": 3}
        return RobertaForSequenceClassification(RobertaConfig(**{**sizes, **changes}))
    if family == "bert":
        return BertModel(BertConfig(vocab_size=WORDS, **SIZES, **changes))
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_labels=3, **SIZES, **changes))


def batch(family: str, rows: int = 3, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if family == "vit":
        return {
            "pixel_values": torch.randn(rows, 3, 8, 8, generator=generator),
            "labels": torch.randint(0, 3, (rows,), generator=generator),
        }
    words = torch.randint(2, WORDS, (rows, 7), generator=generator)
    labels = words if family in ("llama", "phi3") else torch.randint(0, 3, (rows,), generator=generator)
    return {"input_ids": words, "labels": labels}


def bola(model: PreTrainedModel, **settings: object) -> PeftModel:
    """The model with an adapter of random scores, under a seed of its own."""
    torch.manual_seed(7)
    return get_peft_model(model, BolaConfig(**{"k": 4, **settings}))


def sparse(model: torch.nn.Module, **settings: object) -> PeftModel:
    """The model with a SparseDelta adapter, of a tenth of each weight unless the settings say otherwise."""
    if not {"count", "density", "support"} & settings.keys():
        settings["density"] = 0.1
    return get_peft_model(model, SparseDeltaConfig(**settings))


def layers(model: torch.nn.Module) -> list[BolaLinear]:
    return [module for module in model.modules() if isinstance(module, BolaLinear)]


def shake(model: torch.nn.Module, name: str = "default", seed: int = 3) -> None:
    """Gives the values of an adapter content, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers(model):
        if name in layer.bola_values:
            weight = layer.bola_values[name].weight
            weight.data.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def shake_sparse(model: torch.nn.Module, name: str = "default", seed: int = 3) -> None:
    """Gives the values and gates of a SparseDelta adapter content, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for layer in sparse_layers(model).values():
        for leaves in (layer.sparse_delta_values, layer.sparse_delta_gate):
            if name in leaves:
                weight = leaves[name].weight
                weight.data.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
