"""Answers as text: greedy or by beams, batched with padding on the left."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import GenerationConfig

from tombola.evaluation.inference import device_of, pad_id, padded
from tombola.tasks import Generation


def continuations(
    model: nn.Module, prompts: Sequence[Sequence[int]], tokenizer: Any, generation: Generation
) -> list[str]:
    """What the model says after each prompt, without the prompt and without special tokens, up to the end of text."""
    inputs = padded(prompts, pad_id(tokenizer), "left", device_of(model))
    ends = end_tokens(model, tokenizer)
    if generation.max_new_tokens == 1 and generation.num_beams == 1:
        new = model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
    else:
        settings = plain_settings(generation, ends, pad_id(tokenizer))
        # position_ids are left out: generate makes the same ones from the mask, and lengthens them as it goes.
        # Every rank has the whole model and batches of its own, so none waits for the others' steps: synced_gpus.
        whole = model.generate(  # type: ignore[operator]
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            generation_config=settings,
            synced_gpus=False,
        )
        new = whole[:, inputs["input_ids"].shape[1] :]
    return [_text(ids, ends, tokenizer) for ids in new.tolist()]


def plain_settings(generation: Generation, ends: Sequence[int], padding: int) -> GenerationConfig:
    """Deterministic decoding that takes nothing from the model's own generation_config.json.

    What is left None, `generate` fills in from there: Llama's and SmolLM2's ask for sampling, others for penalties.
    """
    return GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        num_beams=generation.num_beams,
        do_sample=False,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        typical_p=1.0,
        min_length=0,
        repetition_penalty=1.0,
        encoder_repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        length_penalty=1.0,
        early_stopping=False,
        num_return_sequences=1,
        use_cache=True,
        eos_token_id=list(ends) or None,
        pad_token_id=padding,
    )


def end_tokens(model: nn.Module, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's end of text, and what the model's own settings add (end of turn)."""
    own: Any = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = own if isinstance(own, list | tuple) else [own]
    return sorted({int(token) for token in (tokenizer.eos_token_id, *listed) if token is not None})


def _text(ids: list[int], ends: Sequence[int], tokenizer: Any) -> str:
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return tokenizer.decode(ids[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False)
