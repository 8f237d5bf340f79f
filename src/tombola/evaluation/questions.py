"""A task's examples made ready to ask: what each takes, and the function that answers a batch of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from tombola.evaluation import choose
from tombola.evaluation.batches import Size
from tombola.evaluation.by_vllm import Writer
from tombola.evaluation.classify import classes, head_outputs, image_outputs, values
from tombola.evaluation.generate import continuations
from tombola.evaluation.likelihood import log_likelihoods, question_size
from tombola.tasks import Example, Generation, Task, adds_special, encode, prompt_ids, prompt_text

PATCH_TOKENS = 196  # an image counts as many tokens as a ViT-B/16 makes of it


@dataclass(frozen=True)
class Questions:
    """The size of each example, and the answers to a batch of example numbers."""

    sizes: list[Size]
    ask: Callable[[Sequence[int]], list[Any]]


def questions(
    model: nn.Module,
    task: Task,
    examples: Sequence[Example],
    processor: Any,
    *,
    max_length: int,
    write: Writer | None = None,
) -> Questions:
    """Questions in the way that the task is answered by; `write` generates texts in the model's stead."""
    if task.answers_by == "generate":
        return _texts(task, examples, processor, write or partial(_continuations, model, processor))
    if task.answers_by == "choose":
        return _options(model, task, examples, processor)
    read = classes if task.answers_by == "classify" else values
    if examples and examples[0].image is not None:
        sizes = [Size(PATCH_TOKENS)] * len(examples)
        return Questions(sizes, lambda batch: read(image_outputs(model, [examples[i].image for i in batch], processor)))
    rows = encode(task, examples, processor, max_length=max_length)
    return Questions(
        [Size(len(row["input_ids"])) for row in rows],
        lambda batch: read(head_outputs(model, [rows[i] for i in batch], processor)),
    )


def _continuations(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Sequence[int]], generation: Generation
) -> list[str]:
    return continuations(model, prompts, tokenizer, generation)


def _texts(task: Task, examples: Sequence[Example], tokenizer: Any, write: Writer) -> Questions:
    prompts = prompt_ids(examples, task.format, tokenizer)
    generation = task.generation
    new = generation.max_new_tokens if generation.max_new_tokens > 1 else 0
    return Questions(
        [Size(len(prompt) + new, generation.num_beams) for prompt in prompts],
        lambda batch: write([prompts[i] for i in batch], generation),
    )


def _options(model: nn.Module, task: Task, examples: Sequence[Example], tokenizer: Any) -> Questions:
    special = adds_special(task.format, tokenizer)
    asked = [
        choose.options(prompt_text(e, task.format, tokenizer), e.choices, tokenizer, special_tokens=special)
        for e in examples
    ]

    def ask(batch: Sequence[int]) -> list[int]:
        scores = log_likelihoods(model, [asked[i] for i in batch], tokenizer)
        return [choose.likeliest(of_options) for of_options in scores]

    return Questions([question_size(group) for group in asked], ask)
