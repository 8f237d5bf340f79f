"""Tokenizers and image processors: read from a folder, or made here for the tiny models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedModel, TokenizersBackend
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# Left for decoders: generation continues at a row's right end.
PADDING_SIDE = {"encoder": "right", "decoder": "left"}


def read_processor(model: Mapping[str, Any], folder: Path) -> Any:
    """The tokenizer or image processor in `folder`. Images through PIL, so that torchvision is not needed."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if model["role"] == "image_encoder":
        return AutoImageProcessor.from_pretrained(folder, backend="pil", **options)
    return AutoTokenizer.from_pretrained(folder, padding_side=PADDING_SIDE[model["role"]], **options)


def tiny_processor(model: Mapping[str, Any]) -> Any:
    """A processor for a random model: of single bytes for text, of its image size for images."""
    if model["role"] == "image_encoder":
        size = model["architecture"]["image_size"]
        return ViTImageProcessorPil(size={"height": size, "width": size})
    return byte_tokenizer(model["role"], model["architecture"]["max_position_embeddings"])


def byte_tokenizer(role: str, max_length: int) -> TokenizersBackend:
    """A tokenizer whose tokens are the 256 bytes and four special ones, so that every digit is one token.

    As in the families it stands in for, encoders get `<s> … </s>` around a text and decoders `<s>` before it.
    """
    vocabulary = [*SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(vocabulary)}, [], unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    ends = [(SPECIAL[name], vocabulary.index(SPECIAL[name])) for name in ("bos_token", "eos_token")]
    single, pair = ("<s> $A </s>", "<s> $A </s> $B </s>") if role == "encoder" else ("<s> $A", "<s> $A $B")
    tokenizer.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    return TokenizersBackend(
        tokenizer_object=tokenizer, model_max_length=max_length, padding_side=PADDING_SIDE[role], **SPECIAL
    )


def agree_on_padding(net: PreTrainedModel, tokenizer: Any) -> None:
    """Give a tokenizer without a padding token one that it has, and tell the model.

    Never a new token: that would resize the embeddings, which are frozen. Llama 2 pads with `<unk>` as LLM-Adapters
    does, Llama 3, which has none, with its end of text. Rows carry attention masks and explicit labels, so nothing is
    computed from the padding.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    net.config.pad_token_id = tokenizer.pad_token_id
    if net.generation_config is not None:
        net.generation_config.pad_token_id = tokenizer.pad_token_id
