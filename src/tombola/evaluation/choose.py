"""Answers by likelihood: which of an example's options the model finds likeliest after the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """A prompt with one option: the tokens of both, and how many at the end are the option's."""

    ids: list[int]
    scored: int


def options(prompt: str, choices: Sequence[str], tokenizer: Any, *, special_tokens: bool) -> list[Option]:
    """Each choice tokenised behind the prompt; spaces that end the prompt are tokenised with the choice.

    A prompt of no tokens is given the tokenizer's BOS, or its EOS: an option's first token is predicted from something.
    """
    stripped = prompt.rstrip(" ")
    moved = prompt[len(stripped) :]
    known = len(tokenizer(stripped, add_special_tokens=special_tokens)["input_ids"])
    whole = tokenizer([stripped + moved + choice for choice in choices], add_special_tokens=special_tokens)["input_ids"]
    scored = [max(1, len(ids) - known) for ids in whole]
    before = [] if all(len(ids) > own for ids, own in zip(whole, scored, strict=True)) else [_start(tokenizer)]
    return [Option([*before, *ids], own) for ids, own in zip(whole, scored, strict=True)]


def likeliest(scores: Sequence[float]) -> int:
    """The number of the best option, the first of equals."""
    return max(range(len(scores)), key=lambda number: scores[number])


def _start(tokenizer: Any) -> int:
    return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)
