"""How `scripts/bench_eval.py` measures padding: tokens forwarded by tokens of rows, and the time of a training step."""

import argparse
import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.progress import track

from bench_eval_answers import Turns
from tombola.models import Host
from tombola.tasks import Example, Generation, Task, TextFormat, tokenised
from tombola.tasks.alpaca import alpaca_prompt
from tombola.training import Ranks, Settings
from tombola.training.accumulate import accumulate
from tombola.training.feed import Feed, OptimizerBatch
from tombola.training.plain import PlainEngine

FILES = {"math": "math_human_10k.jsonl.gz", "commonsense": "commonsense_51k.jsonl.gz"}
MOST_TOKENS = 512


def padding(host: Host, data: Path, asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Both data sets; the steps train LoRA, r = 32, at a learning rate of 0, so that both ways do the same work."""
    accelerator = Accelerator(cpu=True)
    settings = Settings(batch_size=asked.batch, lr=0.0)
    targets = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    # The rows are drawn for a seed and tokenised before the adapter changes the model.
    feeds = {name: feed_of(host, data, name, settings, Ranks(accelerator)) for name in FILES}
    lora = LoraConfig(task_type="CAUSAL_LM", r=32, lora_alpha=64, target_modules=targets)
    model = get_peft_model(host.net, lora).train()
    engine = PlainEngine(accelerator, model, settings)
    return {name: {**tokens(feed), **times(engine, feed, asked.steps, console, name)} for name, feed in feeds.items()}


def feed_of(host: Host, data: Path, name: str, settings: Settings, ranks: Ranks) -> Feed:
    """The rows of a training file as LLM-Adapters trains on them: every token is predicted, EOS closes a row."""
    with gzip.open(data / "llm_adapters" / "ft-training_set" / FILES[name], "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    examples = [Example(alpaca_prompt(row["instruction"], "train"), row["output"], row["answer"]) for row in rows]
    task = SimpleNamespace(
        name=name, version=1, answers_by="generate", generation=Generation(256), format=TextFormat(loss_on="all")
    )
    rows = tokenised(cast(Task, task), examples, host.processor, max_length=MOST_TOKENS)
    return Feed(rows, settings, pad_token_id=host.processor.pad_token_id, padding_side="left", ranks=ranks)


def tokens(feed: Feed) -> dict[str, Any]:
    """Over an epoch: tokens of micro-batches, padding included, by tokens of rows. The rows of a step are the same."""
    plain = ours = useful = calls = 0
    for step in range(feed.steps_per_epoch):
        cut, whole = feed.draw("train", step), feed.draw_whole("train", step)
        rows = sorted(row for turn in cut.turns for row in turn)
        assert rows == sorted(whole.turns[0])
        assert (cut.terms, cut.tokens) == (whole.terms, whole.tokens)
        plain += forwarded(feed, whole)
        ours += forwarded(feed, cut)
        useful += cut.tokens
        calls += len(cut.turns)
    steps = feed.steps_per_epoch
    return {
        "rows": len(feed.rows),
        "tokens_a_row": useful / len(feed.rows),
        "plain": plain / useful,
        "ours": ours / useful,
        "micro_batches_a_step": calls / steps,
    }


def forwarded(feed: Feed, batch: OptimizerBatch) -> int:
    """Tokens that the model is run on, padding included."""
    return sum(len(turn) * max(feed.lengths[row] for row in turn) for turn in batch.turns)


def times(engine: PlainEngine, feed: Feed, steps: int, console: Console, name: str) -> dict[str, Any]:
    """Seconds of a step, optimizer included, of our micro-batches and of the batch as one, on the same rows."""

    def step(drawn: OptimizerBatch) -> float:
        loss = float(accumulate(engine, feed, drawn, keeps_logits=True))
        engine.step(None, engine.gradient_norm(), seed=0)
        return loss

    accumulate(engine, feed, feed.part(range(2)).draw_whole("train", 0), keeps_logits=True)
    engine.forget_gradients()
    turns = Turns()
    apart = 0.0
    for number in track(range(steps), f"training steps, {name}", console=console):
        cut, whole = feed.draw("train", number), feed.draw_whole("train", number)
        mine, other = turns(lambda: step(cut), lambda: step(whole))  # noqa: B023
        apart = max(apart, abs(mine - other))
    return {"steps": turns.told(steps), "largest_loss_difference": apart}
