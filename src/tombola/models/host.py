"""What a method gets to work on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel


@dataclass(frozen=True)
class Host:
    """A frozen model with what comes with it.

    `name` is what others find the weights under: the hub's repository, or our name where the weights are ours alone
    (random, dequantised). It becomes `base_model_name_or_path` of the saved adapters.
    """

    net: PreTrainedModel
    processor: Any  # tokenizer, or image processor
    role: str  # encoder | decoder | image_encoder
    task_type: str | None  # PEFT's: "SEQ_CLS", "CAUSAL_LM", or None for images
    head: tuple[str, ...]  # modules of `net` that are newly initialised, trained in full and counted apart
    name: str
    provenance: dict[str, str] = field(default_factory=dict)  # source, resolved revision or checksum, quantisation
