"""How `scripts/bench_eval.py` measures answers: options chosen, beside lm-eval; texts, beside one prompt at a time."""

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from tombola.evaluation.batches import Size, token_batches
from tombola.evaluation.choose import likeliest, options
from tombola.evaluation.generate import continuations, end_tokens, plain_settings, spoken
from tombola.evaluation.inference import evaluating
from tombola.evaluation.likelihood import log_likelihoods, question_size
from tombola.models import Host
from tombola.tasks import Generation
from tombola.tasks.alpaca import alpaca_prompt

BATCHES_A_TURN = 4  # of choosing: a turn of each way takes some seconds


class Turns:
    """Two ways of doing the same work, by turns: seconds by the clock and of this process's CPU, of every turn."""

    def __init__(self) -> None:
        self.wall: tuple[list[float], list[float]] = ([], [])
        self.cpu: tuple[list[float], list[float]] = ([], [])

    def __call__(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any]:
        """What both give; who goes first changes from turn to turn."""
        pair = [(0, ours), (1, theirs)]
        done: list[Any] = [None, None]
        for which, do in pair if len(self.wall[0]) % 2 == 0 else pair[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            done[which] = do()
            self.wall[which].append(time.perf_counter() - wall)
            self.cpu[which].append(time.process_time() - cpu)
        return done[0], done[1]

    def told(self, examples: int) -> dict[str, Any]:
        """Their time by ours: quartiles over the turns, by the clock and by CPU time; and examples a second of both."""
        rates = [examples / sum(seconds) for seconds in self.wall]
        cpu_rates = [examples / sum(seconds) for seconds in self.cpu]
        return {
            "examples": examples,
            "turns": len(self.wall[0]),
            "examples_per_second": {"ours": rates[0], "theirs": rates[1]},
            "examples_per_cpu_second": {"ours": cpu_rates[0], "theirs": cpu_rates[1]},
            "ratio_quartiles": _quartiles(*self.wall),
            "cpu_ratio_quartiles": _quartiles(*self.cpu),
            "seconds": {"ours": sum(self.wall[0]), "theirs": sum(self.wall[1])},
        }


def _quartiles(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    ratios = [other / mine for mine, other in zip(ours, theirs, strict=True)]
    return statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3


def choosing(host: Host, data: Path, asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    """HellaSwag's first rows as lm-eval 0.4.13 asks them: "activity: context", and " ending"."""
    from lm_eval.api.instance import Instance  # of the extra `eval`
    from lm_eval.models.huggingface import HFLM

    with gzip.open(data / "lm_eval" / "hellaswag.validation.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][: asked.rows]
    questions = [(f"{row['activity_label']}: {row['ctx']}", [f" {one}" for one in row["endings"]]) for row in rows]
    harness = HFLM(pretrained=host.net, tokenizer=host.processor, batch_size=asked.batch)

    def ours(part: Sequence[int]) -> list[list[float]]:
        groups = [options(*questions[i], host.processor, special_tokens=False) for i in part]
        sizes = [Size(1, len(group), question_size(group).alike) for group in groups]
        found: dict[int, list[float]] = {}
        with evaluating(host.net):
            for batch in token_batches(sizes, asked.batch):  # of a length of 1 each: a budget of rows
                found |= zip(batch, log_likelihoods(host.net, [groups[i] for i in batch], host.processor), strict=True)
        return [found[i] for i in range(len(part))]

    def theirs(part: Sequence[int]) -> list[list[float]]:
        pairs = [(questions[i][0], ending) for i in part for ending in questions[i][1]]
        requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
        scores = iter(score for score, _ in harness.loglikelihood(requests, disable_tqdm=True))
        return [[next(scores) for _ in questions[i][1]] for i in part]

    # By length, so that taking turns costs neither way more padding than the whole set at once would.
    order = sorted(range(len(rows)), key=lambda i: -max(len(f"{questions[i][0]}{one}") for one in questions[i][1]))
    step = max(1, BATCHES_A_TURN * asked.batch // 4)
    parts = [order[start : start + step] for start in range(0, len(order), step)]
    for do in (ours, theirs):
        do(parts[-1][:1])
    turns = Turns()
    same, apart = 0, 0.0
    for part in track(parts, "choosing", console=console):
        mine, others = turns(lambda: ours(part), lambda: theirs(part))  # noqa: B023
        for one, other in zip(mine, others, strict=True):
            same += likeliest(one) == likeliest(other)
            apart = max(apart, *(abs(a - b) for a, b in zip(one, other, strict=True)))
    return {**turns.told(len(rows)), "same_choices": same, "largest_difference": apart}


def generating(host: Host, data: Path, asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    """GSM8K's questions, evenly spread, in LLM-Adapters' prompt; one at a time by `transformers.generate` itself."""
    rows = json.loads((data / "llm_adapters" / "dataset" / "gsm8k" / "test.json").read_text(encoding="utf-8"))
    texts = [
        alpaca_prompt(rows[number * len(rows) // asked.prompts]["instruction"], "eval_original")
        for number in range(asked.prompts)
    ]
    prompts: list[list[int]] = host.processor(texts)["input_ids"]
    generation = Generation(asked.new_tokens)
    ends = end_tokens(host.net, host.processor)
    settings = plain_settings(generation, ends, host.processor.pad_token_id)

    def alone(ids: list[int]) -> str:
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        whole: Tensor = host.net.generate(**inputs, generation_config=settings)  # type: ignore[operator,assignment]
        return spoken(whole[0, len(ids) :].tolist(), ends, host.processor)

    batches = token_batches([Size(1, alike=len(ids)) for ids in prompts], asked.batch)
    turns = Turns()
    different = []
    with evaluating(host.net):
        for batch in track(batches, "generating", console=console):
            mine, others = turns(
                lambda: continuations(host.net, [prompts[i] for i in batch], host.processor, generation),  # noqa: B023
                lambda: [alone(prompts[i]) for i in batch],  # noqa: B023
            )
            pairs = zip(batch, mine, others, strict=True)
            different += [{"row": i, "ours": one, "alone": other} for i, one, other in pairs if one != other]
    lengths = [min(map(len, prompts)), max(map(len, prompts))]
    return {**turns.told(len(prompts)), "prompt_tokens": lengths, "different": different}
