"""lm-eval's own way to ask a network, with answers that are kept as they come.

lm-eval 0.4.13 can keep answers as well, but pickled, under keys that do not name the model, and what was left after a
kill is batched anew, so that the last bits of its likelihoods are others.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import nn

from tombola.evaluation import AnswerFile
from tombola.evaluation.fingerprint import digest

Likelihood = tuple[float, bool]  # of an option's tokens (nats), and whether greedy decoding would say them
Tokens = tuple[tuple[str, str], list[int], list[int]]  # the texts, tokens of the context, tokens of the continuation


class KeptAnswers(HFLM):
    """HFLM that cuts requests into lm-eval's own batches itself, and asks for those that are not answered yet.

    A batch holds the same rows, and gives the same bits, whatever was answered before. `score` and `generate` answer
    one batch; a faster way to score the options of a question takes the place of `score`. `begin` is told how many
    requests there are, and what it returns how many are done.
    """

    def __init__(
        self,
        net: nn.Module,
        tokenizer: Any,
        *,
        batch_size: int,
        answers: AnswerFile,
        begin: Callable[[int], Callable[[int], object]] | None = None,
    ) -> None:
        super().__init__(pretrained=net, tokenizer=tokenizer, batch_size=batch_size)
        self._answers, self._begin = answers, begin
        self.cut = 0  # requests longer than the model's context, whose beginning lm-eval leaves out

    def score(self, requests: list[Tokens]) -> list[Likelihood]:
        """The likelihoods of one batch."""
        return super()._loglikelihood_tokens(requests, disable_tqdm=True)

    def generate(self, requests: list[Instance]) -> list[str]:
        """What the model says to one batch."""
        return super().generate_until(requests, disable_tqdm=True)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Likelihood]:
        """One likelihood a request, without lm-eval's own progress bars."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[Tokens], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Likelihood]:
        self.cut += sum(len(context) + len(more) > self.max_length + 1 for _, context, more in requests)
        found = self._kept(
            "likelihoods",
            [[context, continuation] for _, context, continuation in requests],
            likelihood_batches(requests, int(self.batch_size)),
            lambda batch: self.score([requests[number] for number in batch]),
        )
        return [(likelihood, greedy) for likelihood, greedy in found]  # JSON knows no tuples

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """One text a request."""
        lengths = [len(self.tok_encode(request.args[0])) for request in requests]
        self.cut += sum(length > self.max_length - self.max_gen_toks for length in lengths)
        return self._kept(
            "texts",
            [request.args for request in requests],
            generation_batches(requests, lengths, int(self.batch_size)),
            lambda batch: self.generate([requests[number] for number in batch]),
        )

    def _kept(
        self,
        kind: str,
        questions: Sequence[Any],
        batches: Sequence[Sequence[int]],
        ask: Callable[[Sequence[int]], Sequence[Any]],
    ) -> list[Any]:
        known = self._answers.begin(digest(kind, self.batch_size, questions))
        advance = self._begin(len(questions)) if self._begin else None
        answers: dict[int, Any] = {}
        for batch in batches:
            if all(number in known for number in batch):
                found = {number: known[number] for number in batch}
            else:
                found = dict(zip(batch, ask(batch), strict=True))
                self._answers.append(found)
            answers |= found
            if advance:
                advance(len(batch))
        return [answers[number] for number in range(len(questions))]


def likelihood_batches(requests: Sequence[Tokens], size: int) -> list[list[int]]:
    """Request numbers by batch, as lm-eval has them: the longest first, `size` rows a batch.

    Requests that differ in the last token alone are one row: the same logits answer all of them.
    """
    rows: dict[tuple[int, ...], list[int]] = {}
    for number, (_, context, continuation) in enumerate(requests):
        rows.setdefault((*context, *continuation[:-1]), []).append(number)

    def place(row: list[int]) -> tuple[int, tuple[int, ...]]:
        longest = max(row, key=lambda number: len(requests[number][2]))
        tokens = (*requests[longest][1], *requests[longest][2])
        return -len(tokens), tokens

    ordered = sorted(rows.values(), key=place)
    return [[n for row in ordered[start : start + size] for n in row] for start in range(0, len(ordered), size)]


def generation_batches(requests: Sequence[Instance], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Request numbers by batch, as lm-eval has them: those with the same settings together, the longest first."""
    alike: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
    batches = []
    for numbers in alike.values():
        ordered = sorted(numbers, key=lambda number: (-lengths[number], requests[number].args[0]))
        batches += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return batches
