"""Answers as text by vLLM, for GPUs: a plain checkpoint and prompts as token ids go to a process of its own."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from tombola.evaluation.generate import end_tokens, spoken
from tombola.tasks import Generation

PROCESS = Path(__file__).with_name("vllm_process.py")
TOKENS_AT_ONCE = 2**18  # of prompts and answers: vLLM makes batches of its own, and does that best with many rows
PATIENCE_SECONDS = 60

Writer = Callable[[Sequence[Sequence[int]], Generation], list[str]]
"""Texts that go on from prompts, as `generate.continuations` gives them."""


class VllmFailed(RuntimeError):
    """vLLM's process ended before it had answered."""


@contextmanager
def vllm_writer(
    checkpoint: Path, *, python: str, model: nn.Module, tokenizer: Any, dtype: str, log: Path
) -> Iterator[Writer]:
    """A writer by vLLM in the environment of `python`; what vLLM prints goes to `log`.

    `model` and `tokenizer` say which tokens end an answer. Raises VllmFailed.
    """
    ends = end_tokens(model, tokenizer)
    with log.open("ab") as printed:
        process = subprocess.Popen(
            [python, "-P", str(PROCESS), str(checkpoint), dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None

    def write(prompts: Sequence[Sequence[int]], generation: Generation) -> list[str]:
        if generation.num_beams > 1:
            raise ValueError(f"vLLM decodes greedily, and {generation.num_beams} beams were asked for")
        asked = {
            "prompts": [list(ids) for ids in prompts],
            "max_tokens": generation.max_new_tokens,
            "ends": ends,
            "stops": generation.stop_strings,
        }
        found = _reply(process, json.dumps(asked))
        if not found:
            raise VllmFailed(f"vLLM ended before it had answered; see the end of {log}")
        return [spoken(ids, ends, tokenizer, generation.stop_strings) for ids in json.loads(found)]

    try:
        yield write
    finally:
        process.stdin.close()  # which ends it
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _reply(process: subprocess.Popen[str], request: str) -> str:
    """The line that comes back, empty where the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return process.stdout.readline()
