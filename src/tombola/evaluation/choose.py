"""Answers by likelihood: which of an example's options the model finds likeliest after the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tombola.evaluation.inference import device_of, pad_id, padded


@dataclass(frozen=True)
class Option:
    """A prompt with one option: the tokens of both, and how many at the end are the option's."""

    ids: list[int]
    scored: int


def options(prompt: str, choices: Sequence[str], tokenizer: Any, *, special_tokens: bool) -> list[Option]:
    """Each choice tokenised behind the prompt; spaces that end the prompt are tokenised with the choice."""
    stripped = prompt.rstrip(" ")
    moved = prompt[len(stripped) :]
    known = len(tokenizer(stripped, add_special_tokens=special_tokens)["input_ids"])
    whole = tokenizer([stripped + moved + choice for choice in choices], add_special_tokens=special_tokens)["input_ids"]
    return [Option(list(ids), max(1, len(ids) - known)) for ids in whole]


def log_likelihoods(model: nn.Module, rows: Sequence[Option], tokenizer: Any) -> list[float]:
    """Summed log-probability (nats) of each option's own tokens, in float32."""
    kept = max(row.scored for row in rows)
    inputs = padded([row.ids for row in rows], pad_id(tokenizer), "left", device_of(model))
    # The token at a position is predicted one before it; other positions' logits are never made.
    logits = model(**inputs, logits_to_keep=kept + 1).logits[:, :-1].float()
    tokens = inputs["input_ids"][:, -kept:]
    token_scores = torch.log_softmax(logits, dim=-1).gather(-1, tokens[..., None])[..., 0]
    return [float(scores[kept - row.scored :].sum()) for scores, row in zip(token_scores, rows, strict=True)]


def likeliest(scores: Sequence[float]) -> int:
    """The number of the best option, the first of equals."""
    return max(range(len(scores)), key=lambda number: scores[number])
