"""A frozen model in four bits (QLoRA, Dettmers et al., 2023, arXiv 2305.14314), by bitsandbytes, which is optional."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import torch
from torch import nn
from transformers import PreTrainedModel

BLOCK, SCALES_BLOCK = 64, 256  # bitsandbytes': numbers with one scale, and scales with one of their own


def quantise(net: PreTrainedModel, head: Sequence[str], *, kind: str, double: bool) -> None:
    """Replace every linear layer of `net` by a four-bit one, in place, but for `head` and the language model's head.

    `kind` is nf4 or fp4; `double` quantises the blocks' scales as well. Products are in the dtype of the weights. With
    nf4 and `double` the layers and their bits are those that transformers loads by
    `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)`. It is done on
    the CPU wherever the weights are, so that a model is the same on every device.

    Raises ValueError where bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ValueError(
            "A base in four bits needs bitsandbytes, which is not installed. Install tombola[quantised], or take "
            "method=lora."
        )
    for path, module in list(quantised_layers(net, head)):
        net.set_submodule(path, _four_bit(module, kind, double))
    net.is_loaded_in_4bit = True  # type: ignore[assignment]  # what PEFT asks before it puts a LoRA on such layers


def quantised_layers(net: PreTrainedModel, head: Sequence[str]) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that `quantise` takes, by path."""
    output = net.get_output_embeddings()
    for path, module in net.named_modules():
        in_head = any(path == name or path.startswith(f"{name}.") for name in head)
        if type(module) is nn.Linear and module is not output and not in_head:
            yield path, module


def four_bit_bytes(numbers: int, *, double: bool) -> int:
    """Bytes of so many numbers in four bits: two to a byte, and float32 scales, or 8-bit ones with scales of theirs."""
    scales = numbers / BLOCK
    return round(numbers / 2 + (scales * (1 + 4 / SCALES_BLOCK) if double else scales * 4))


def _four_bit(linear: nn.Linear, kind: str, double: bool) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight = linear.weight
    made = Linear4bit(
        linear.in_features, linear.out_features, bias=False, compute_dtype=weight.dtype, quant_type=kind, device="meta"
    )
    packed = Params4bit(weight.detach().cpu(), requires_grad=False, quant_type=kind, compress_statistics=double)
    made.weight = packed.to(torch.device("cpu")).to(weight.device)
    made.bias = linear.bias
    return made
