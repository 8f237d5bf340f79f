"""A model's scores on the test sets of a task, as a run and an evaluation report them."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import nn

from tombola.evaluation import TOKENS_AT_ONCE, AnswerFile, Writer, answer, evaluation_progress
from tombola.models import Host
from tombola.outcome import Outcome
from tombola.sample import spread
from tombola.tasks import Task
from tombola.training import Settings
from tombola_cli.records import Score


def task_scores(
    model: nn.Module,
    task: Task,
    host: Host,
    settings: Settings,
    folder: Path,
    *,
    of: str,
    console: Console,
    rank: int = 0,
    world_size: int = 1,
    write: Writer | None = None,
) -> list[Score]:
    """The model's scores on the task's test sets; its answers are kept in `folder`, as those of the weights `of`.

    `write` generates texts in the model's stead.
    """
    tests = {split: spread(examples, settings.max_eval_rows) for split, examples in task.tests().items()}
    scores = []
    with evaluation_progress(console) as progress:
        for split, examples in tests.items():
            kept = folder / "answers" / f"{task.name.replace('/', '_')}-{split}.jsonl"
            answers = answer(
                model,
                task,
                examples,
                host.processor,
                token_budget=TOKENS_AT_ONCE if write else settings.eval_token_budget,
                max_length=settings.max_length,
                answers=AnswerFile(kept, f"{of} by vllm" if write else of, rank=rank),
                rank=rank,
                world_size=world_size,
                progress=progress,
                label=f"{task.name} {split}",
                write=write,
            )
            measured = task.measure(examples, answers)
            scores += [Score(task.name, split, metric, value, len(examples)) for metric, value in measured.items()]
    return scores


def tell(console: Console, outcome: Outcome, scores: Sequence[Score], more: Sequence[str] = ()) -> None:
    """Shows the scores, more lines, and where the record is."""
    lines = [f"{one.task} {one.split}: {one.metric} {100 * one.value:.2f} % (n={one.n})" for one in scores]
    for line in [*lines, *more]:
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"record: {outcome.written}", highlight=False, soft_wrap=True)
