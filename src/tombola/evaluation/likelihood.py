"""The likelihood of options: what the options of a question share is computed once, and each goes on from there."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from tombola.evaluation.batches import Size
from tombola.evaluation.choose import Option
from tombola.evaluation.inference import device_of, pad_id, padded
from tombola.evaluation.key_values import empty_cache, picked

# Options go on together while the shortest has at least this share of the longest's tokens, or few have come together.
EVEN, FEW_TOKENS = 0.8, 64


@dataclass(frozen=True)
class Branch:
    """An option as the tokens that go on from a shared beginning of `shared` tokens."""

    root: int  # number of the beginning
    shared: int
    option: Option

    @property
    def read(self) -> list[int]:
        """The tokens that are run after the beginning: the last one predicts nothing that is asked for."""
        return self.option.ids[self.shared : -1]

    @property
    def first(self) -> int:
        """The place of the first token that is scored."""
        return len(self.option.ids) - self.option.scored


def question_size(group: Sequence[Option]) -> Size:
    """What the options of one question take: whole rows in memory; prompts are padded to one another, so they sort."""
    return Size(max(len(option.ids) for option in group), len(group), alike=_shared([option.ids for option in group]))


def log_likelihoods(model: nn.Module, groups: Sequence[Sequence[Option]], tokenizer: Any) -> list[list[float]]:
    """Summed log-probability (nats) of each option's own tokens, by question, in float32.

    The options of a group are (context, continuation) pairs of token ids, `ids[:-scored]` and `ids[-scored:]`, in
    general of one context. What is shared is the longest common beginning of their tokens, wherever the contexts end:
    a tokenizer may join a context's last letters with the continuation's first ones. Options that share nothing, and
    models without a cache that can be picked from, are run whole. A context has at least one token.
    """
    cache = empty_cache(model)
    if cache is None:
        scores = iter(whole_log_likelihoods(model, [option for group in groups for option in group], tokenizer))
        return [[next(scores) for _ in group] for group in groups]
    roots, branches = _tree(groups)
    inputs = padded(roots, pad_id(tokenizer), "left", device_of(model))
    # How many of a beginning's last positions predict something that is asked for.
    kept = max(1, max(branch.shared - branch.first + 1 for branch in branches))
    logits = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=kept).logits
    totals = [_of_shared(logits[branch.root], branch) for branch in branches]
    for part in _evenly([len(branch.read) for branch in branches]):
        found = _of_rest(model, [branches[number] for number in part], inputs["attention_mask"], cache, tokenizer)
        for number, rest in zip(part, found, strict=True):
            totals[number] = totals[number] + rest
    scores = iter(torch.stack(totals).tolist())
    return [[next(scores) for _ in group] for group in groups]


def whole_log_likelihoods(model: nn.Module, rows: Sequence[Option], tokenizer: Any) -> list[float]:
    """The same by running every option with its context."""
    kept = max(row.scored for row in rows)
    inputs = padded([row.ids for row in rows], pad_id(tokenizer), "left", device_of(model))
    # The token at a position is predicted one before it; other positions' logits are never made.
    logits = model(**inputs, logits_to_keep=kept + 1).logits[:, :-1]
    scores = [
        _summed(line[kept - row.scored :], row.ids[-row.scored :]) for line, row in zip(logits, rows, strict=True)
    ]
    return torch.stack(scores).tolist()


def _tree(groups: Sequence[Sequence[Option]]) -> tuple[list[list[int]], list[Branch]]:
    """The beginnings, and every option, in order, as what goes on from one of them."""
    roots: list[list[int]] = []
    branches = []
    for group in groups:
        shared = _shared([option.ids for option in group])
        if shared:
            roots.append(group[0].ids[:shared])
        for option in group:
            if not shared:
                roots.append(option.ids[:-1])
            branches.append(Branch(len(roots) - 1, len(roots[-1]), option))
    return roots, branches


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """The number of tokens with which all rows begin, less than a whole row."""
    common = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False))
    return min(sum(1 for _ in common), *(len(row) - 1 for row in rows))


def _of_shared(logits: Float[Tensor, "kept vocabulary"], branch: Branch) -> Float[Tensor, ""]:
    """What a beginning's last positions say of the option: of its tokens among them, and of the first one after."""
    asked = branch.option.ids[branch.first : branch.shared + 1]
    return _summed(logits[len(logits) - len(asked) :], asked)


def _of_rest(
    model: nn.Module,
    branches: Sequence[Branch],
    known: Int[Tensor, "roots width"],  # attention mask of the beginnings
    cache: DynamicCache,
    tokenizer: Any,
) -> list[Float[Tensor, ""]]:
    """What the options' own tokens say of those that follow them."""
    roots = torch.tensor([branch.root for branch in branches], device=known.device)
    own = padded([branch.read for branch in branches], pad_id(tokenizer), "right", known.device)
    starts = torch.tensor([branch.shared for branch in branches], device=known.device)
    places = torch.arange(own["input_ids"].shape[1], device=known.device)
    logits = model(
        input_ids=own["input_ids"],
        attention_mask=torch.cat([known[roots], own["attention_mask"]], dim=1),
        position_ids=starts[:, None] + places,
        past_key_values=picked(cache, roots),
        use_cache=True,
    ).logits
    scores = []
    for line, branch in zip(logits, branches, strict=True):
        asked = branch.option.ids[max(branch.first, branch.shared + 1) :]
        scores.append(_summed(line[len(branch.read) - len(asked) : len(branch.read)], asked))
    return scores


def _summed(logits: Float[Tensor, "tokens vocabulary"], tokens: Sequence[int]) -> Float[Tensor, ""]:
    """Row by row, so that no second tensor of the batch's logits is made."""
    targets = torch.tensor(tokens, dtype=torch.long, device=logits.device)
    return -F.cross_entropy(logits.float(), targets, reduction="sum")


def _evenly(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of the rows that have tokens, longest first, in parts of about one length."""
    parts: list[list[int]] = []
    for number in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: (-lengths[i], i)):
        longest = lengths[parts[-1][0]] if parts else 0
        if not parts or (lengths[number] < EVEN * longest and len(parts[-1]) * longest >= FEW_TOKENS):
            parts.append([])
        parts[-1].append(number)
    return parts
