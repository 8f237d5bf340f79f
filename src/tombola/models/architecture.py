"""From the plain values of `conf/model/*.yaml` to transformers' configs and classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    CLIPConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

AUTO_CLASS = {
    "encoder": AutoModelForSequenceClassification,
    "image_encoder": AutoModelForImageClassification,
    "decoder": AutoModelForCausalLM,
}
TASK_TYPE = {"encoder": "SEQ_CLS", "decoder": "CAUSAL_LM", "image_encoder": None}
KINDS = {
    "encoder": ("classify", "regress"),
    "image_encoder": ("classify",),
    # A decoder answers in words whatever is asked, so its task may be of any kind.
    "decoder": ("classify", "regress", "choose", "generate", "probe"),
}

# A wrong value of these changes the shape of a layer; others (dropout, epsilon) may differ between revisions.
SHAPING = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def head_options(model: Mapping[str, Any], kind: str, labels: int) -> dict[str, Any]:
    """The config fields of the new head, none for a decoder. Raises ValueError for a task the model cannot answer."""
    role = model["role"]
    if kind not in KINDS[role]:
        raise ValueError(
            f"Model {model['name']} is of role {role}, which answers tasks of kind {' or '.join(KINDS[role])}, "
            f"not {kind}; choose a model with another role."
        )
    if role == "decoder":
        return {}
    if labels < (1 if kind == "regress" else 2):
        raise ValueError(
            f"Model {model['name']} needs the number of classes for its head (1 for regression, else 2 or more), "
            f"got labels={labels}; set task.labels."
        )
    return {"num_labels": labels, "problem_type": "regression" if kind == "regress" else "single_label_classification"}


def net_config(model: Mapping[str, Any], head: Mapping[str, Any]) -> PreTrainedConfig:
    """transformers' config of the model; `head` are fields added to the architecture's."""
    values = dict(model["architecture"])
    model_type = values.pop("model_type")
    if model_type == "clip_vision_model":  # the class with a head reads the tower's config out of the whole CLIP's
        return CLIPConfig(vision_config=values, **head)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"Model {model['name']} has the architecture.model_type {model_type!r}, which transformers does not know; "
            "expected one of its own, such as llama, roberta, bert, phi3, vit."
        )
    return CONFIG_MAPPING[model_type](**values, **head)


def empty_net(model: Mapping[str, Any], *, kind: str, labels: int) -> PreTrainedModel:
    """The model with its head on the meta device: shapes and no values, in well under a second."""
    config = net_config(model, head_options(model, kind, labels))
    with torch.device("meta"):
        return AUTO_CLASS[model["role"]].from_config(config, dtype=getattr(torch, model["dtype"]))


def differences(model: Mapping[str, Any], config: PreTrainedConfig) -> list[str]:
    """Where a checkpoint's config has other layer shapes than `conf/model` says, one phrase each."""
    found = getattr(config, "vision_config", config).to_dict()
    expected = model["architecture"]
    return [
        f"{name} is {found.get(name)} and not {expected[name]}" for name in SHAPING if found.get(name) != expected[name]
    ]
