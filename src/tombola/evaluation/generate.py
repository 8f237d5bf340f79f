"""Answers as text: greedy or by beams, batched with padding on the left."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig

from tombola.evaluation.inference import device_of, pad_id, padded
from tombola.evaluation.key_values import empty_cache, picked
from tombola.tasks import Generation


def continuations(
    model: nn.Module, prompts: Sequence[Sequence[int]], tokenizer: Any, generation: Generation
) -> list[str]:
    """What the model says after each prompt, without the prompt and special tokens, up to the end of text or a stop."""
    cache = empty_cache(model)
    one_token = generation.max_new_tokens == 1
    if generation.num_beams == 1 and (one_token or cache is not None):
        said = _greedy(model, prompts, tokenizer, generation, None if one_token else cache)
    else:
        said = _by_transformers(model, prompts, tokenizer, generation)
    ends = end_tokens(model, tokenizer)
    return [spoken(ids, ends, tokenizer, generation.stop_strings) for ids in said]


def _greedy(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    tokenizer: Any,
    generation: Generation,
    cache: DynamicCache | None,
) -> list[list[int]]:
    """The likeliest token again and again; a row that is done leaves the batch, so that it does not cost any more.

    `transformers.generate` runs the whole batch until its longest answer is done.
    """
    ends = end_tokens(model, tokenizer)
    inputs = padded(prompts, pad_id(tokenizer), "left", device_of(model))
    said: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    while True:
        logits = model(**inputs, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1).logits[:, -1]
        new = logits.argmax(-1)
        for row, token in zip(running, new.tolist(), strict=True):
            said[row].append(token)
        stays = [place for place, row in enumerate(running) if not _is_done(said[row], ends, tokenizer, generation)]
        if not stays or cache is None:
            return said
        mask, positions = inputs["attention_mask"], inputs["position_ids"][:, -1:] + 1
        if len(stays) < len(running):
            running = [running[place] for place in stays]
            chosen = torch.tensor(stays, device=new.device)
            new, mask, positions, cache = new[chosen], mask[chosen], positions[chosen], picked(cache, chosen)
        inputs = {
            "input_ids": new[:, None],
            "attention_mask": torch.cat([mask, mask.new_ones(len(new), 1)], dim=1),
            "position_ids": positions,
        }


def _by_transformers(
    model: nn.Module, prompts: Sequence[Sequence[int]], tokenizer: Any, generation: Generation
) -> list[list[int]]:
    inputs = padded(prompts, pad_id(tokenizer), "left", device_of(model))
    settings = plain_settings(generation, end_tokens(model, tokenizer), pad_id(tokenizer))
    # position_ids are left out: generate makes the same ones from the mask, and lengthens them as it goes.
    # Every rank has the whole model and batches of its own, so none waits for the others' steps: synced_gpus.
    whole = model.generate(  # type: ignore[operator]
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        generation_config=settings,
        synced_gpus=False,
        tokenizer=tokenizer,
    )
    return whole[:, inputs["input_ids"].shape[1] :].tolist()


def plain_settings(generation: Generation, ends: Sequence[int], padding: int) -> GenerationConfig:
    """Deterministic decoding that takes nothing from the model's own generation_config.json.

    What is left None, `generate` fills in from there: Llama's and SmolLM2's ask for sampling, others for penalties.
    """
    return GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        num_beams=generation.num_beams,
        stop_strings=list(generation.stop_strings) or None,
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


def spoken(ids: Sequence[int], ends: Sequence[int], tokenizer: Any, stop_strings: Sequence[str] = ()) -> str:
    """The text of new tokens: before the first end token, and up to and with the first stop string."""
    end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    text = tokenizer.decode(list(ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    stops = [text.index(stop) + len(stop) for stop in stop_strings if stop in text]
    return text[: min(stops, default=len(text))]


def _is_done(ids: Sequence[int], ends: Sequence[int], tokenizer: Any, generation: Generation) -> bool:
    if ids[-1] in ends or len(ids) == generation.max_new_tokens:
        return True
    # A stop string lies in its last bytes' tokens, and the newest token ends it: older text has been looked at.
    tail = max((len(stop.encode()) for stop in generation.stop_strings), default=0) + 1
    text = tokenizer.decode(ids[-tail:], clean_up_tokenization_spaces=False) if generation.stop_strings else ""
    return any(stop in text for stop in generation.stop_strings)
