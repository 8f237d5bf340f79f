"""A model's answers to a task's examples: batched by tokens, kept as they come, shared by ranks."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from tombola.evaluation.answer_file import AnswerFile
from tombola.evaluation.batches import token_batches
from tombola.evaluation.by_vllm import Writer
from tombola.evaluation.fingerprint import digest
from tombola.evaluation.inference import evaluating
from tombola.evaluation.questions import questions
from tombola.tasks import Example, Task


def answer(
    model: nn.Module,
    task: Task,
    examples: Sequence[Example],
    processor: Any,
    *,
    token_budget: int,
    max_length: int = 512,
    answers: AnswerFile | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
    label: str | None = None,
    write: Writer | None = None,
) -> list[Any]:
    """One answer an example, in the examples' order: text, a class or option number, or a float, as the task asks.

    Batches hold at most `token_budget` padded tokens, answers still to be generated among them. Rows for a head are cut
    at `max_length` as in training; prompts are never cut. `answers` keeps each finished batch on disk: started again,
    only batches that are not whole are asked. Ranks take every `world_size`-th batch and all return all answers.
    `write` generates texts in the model's stead.
    """
    asked = questions(model, task, examples, processor, max_length=max_length, write=write)
    batches = token_batches(asked.sizes, token_budget)
    known = answers.begin(_fingerprint(task, examples, token_budget, max_length)) if answers else {}
    share = batches[rank::world_size]
    bar = progress.add_task(label or task.name, total=sum(map(len, share))) if progress else None
    mine: dict[int, Any] = {}
    with evaluating(model):
        for batch in share:
            if all(index in known for index in batch):
                found = {index: known[index] for index in batch}
            else:
                found = dict(zip(batch, asked.ask(batch), strict=True))
                if answers:
                    answers.append(found)
            mine |= found
            if progress and bar is not None:
                progress.advance(bar, len(batch))
    everyones = _gathered(mine, world_size)
    return [everyones[index] for index in range(len(examples))]


def _fingerprint(task: Task, examples: Sequence[Example], token_budget: int, max_length: int) -> str:
    """Other prompts, options, decoding or batches mean other questions."""
    asked = [[e.prompt, e.pair, e.prefix, list(e.choices), [[s.prompt, s.answer] for s in e.shots]] for e in examples]
    how = [task.name, task.version, task.answers_by, asdict(task.generation), asdict(task.format)]
    return digest(how, token_budget, max_length, asked)


def _gathered(mine: dict[int, Any], world_size: int) -> dict[int, Any]:
    if world_size == 1:
        return mine
    if not torch.distributed.is_initialized():
        raise ValueError(
            f"world_size={world_size}: expected an initialised torch.distributed process group to gather by"
        )
    parts: list[dict[int, Any]] = [{} for _ in range(world_size)]
    torch.distributed.all_gather_object(parts, mine)
    return {index: found for part in parts for index, found in part.items()}
