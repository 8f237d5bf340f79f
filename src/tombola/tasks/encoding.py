"""Examples to token rows: training rows with labels, and prompts to answer."""

from collections.abc import Callable, Sequence
from typing import Any

from tombola.tasks.example import DataError, Example, Row, Task, TextFormat
from tombola.tasks.views import image_rows

NO_LOSS = -100
# Rows a tokenizer call: enough to use its threads; the character offsets of all rows at once would take gigabytes.
ROWS_AT_ONCE = 256


def encode(
    task: Task,
    examples: Sequence[Example],
    processor: Any,
    *,
    max_length: int,
    on_cut: Callable[[int], None] | None = None,
) -> list[Row]:
    """Training rows of at most `max_length` tokens, as the task's format says; `on_cut` is told how many were cut."""
    if not examples:
        return []
    if examples[0].image is not None:
        return image_rows(examples, processor)
    labelled = task.answers_by in ("classify", "regress")
    rows: list[Row] = []
    cut = 0
    for start in range(0, len(examples), ROWS_AT_ONCE):
        part = examples[start : start + ROWS_AT_ONCE]
        made = _label_rows(part, processor) if labelled else _text_rows(task, part, processor)
        for example, row in zip(part, made, strict=True):
            too_long = len(row["input_ids"]) > max_length
            if too_long and task.format.cut == "never":
                raise DataError(_too_long(task, len(rows), len(row["input_ids"]), max_length))
            cut += too_long
            if labelled:
                rows.append(_shortened(example, row, processor, max_length) if too_long else row)
            else:
                rows.append(_finished(row, task, processor, max_length))
    if cut and on_cut:
        on_cut(cut)
    return rows


def prompt_text(example: Example, text_format: TextFormat, tokenizer: Any) -> str:
    """The text in front of the answer: shots, question and prefix, in the tokenizer's chat template if so asked.

    The assistant's turn is left open after the prefix, so that the model goes on from there.
    """
    if not uses_chat(text_format, tokenizer):
        solved = "".join(f"{shot.prompt}\n\n{example.prefix}{shot.answer}\n\n" for shot in example.shots)
        return solved + example.prompt + (f"\n\n{example.prefix}" if example.prefix else "")
    turns = []
    for shot in example.shots:
        turns.append({"role": "user", "content": shot.prompt})
        turns.append({"role": "assistant", "content": example.prefix + shot.answer})
    turns.append({"role": "user", "content": example.prompt})
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + example.prefix


def uses_chat(text_format: TextFormat, tokenizer: Any) -> bool:
    """Whether prompts go through a chat template, which then writes the special tokens too."""
    return text_format.chat and bool(getattr(tokenizer, "chat_template", None))


def adds_special(text_format: TextFormat, tokenizer: Any) -> bool:
    """Whether the tokenizer is to add its special tokens."""
    return text_format.special and not uses_chat(text_format, tokenizer)


def prompt_ids(examples: Sequence[Example], text_format: TextFormat, tokenizer: Any) -> list[list[int]]:
    """Token ids of each example's `prompt_text`, the last `prompt_tokens` of them."""
    ids = _whole_prompts(examples, text_format, tokenizer)
    return ids if text_format.prompt_tokens is None else [one[-text_format.prompt_tokens :] for one in ids]


def _whole_prompts(examples: Sequence[Example], text_format: TextFormat, tokenizer: Any) -> list[list[int]]:
    special = adds_special(text_format, tokenizer)
    ids: list[list[int]] = []
    for start in range(0, len(examples), ROWS_AT_ONCE):
        texts = [prompt_text(example, text_format, tokenizer) for example in examples[start : start + ROWS_AT_ONCE]]
        if not text_format.joined:
            ids += tokenizer(texts, add_special_tokens=special)["input_ids"]
            continue
        # Any word will do: its token takes the trailing space with it, as an answer's first word does in training.
        encoded = tokenizer([f"{text}A" for text in texts], add_special_tokens=special, return_offsets_mapping=True)
        for text, tokens, spans in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ids.append([token for token, (_, end) in zip(tokens, spans, strict=True) if end <= len(text)])
    return ids


def _text_rows(task: Task, examples: Sequence[Example], tokenizer: Any) -> list[Row]:
    prompts = [prompt_text(example, task.format, tokenizer) for example in examples]
    texts = [prompt + str(example.target) for prompt, example in zip(prompts, examples, strict=True)]
    special = adds_special(task.format, tokenizer)
    encoded = tokenizer(texts, add_special_tokens=special, return_offsets_mapping=True)
    rows = []
    for example, prompt, ids, spans in zip(
        examples, prompts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        answer = [end > len(prompt) for _, end in spans]
        if task.generation.max_new_tokens == 1:
            _check_one_token(task, example, answer, spans, len(prompt), tokenizer)
        if task.format.loss_on == "all":
            labels = list(ids)
        else:
            labels = [token if counts else NO_LOSS for token, counts in zip(ids, answer, strict=True)]
        rows.append({"input_ids": list(ids), "labels": labels})
    return rows


def _label_rows(examples: Sequence[Example], tokenizer: Any) -> list[Row]:
    firsts, pairs = [example.prompt for example in examples], [example.pair for example in examples]
    paired = pairs[0] is not None
    encoded = tokenizer(firsts, pairs) if paired else tokenizer(firsts)
    fields = [name for name in ("input_ids", "token_type_ids") if name in encoded][: 1 + paired]
    columns = zip(*(encoded[name] for name in fields), strict=True)
    return [
        {**{name: list(values) for name, values in zip(fields, row, strict=True)}, "label": example.target}
        for row, example in zip(columns, examples, strict=True)
    ]


def _shortened(example: Example, row: Row, tokenizer: Any, max_length: int) -> Row:
    """A head's row cut to length, with its closing special token; of a pair the longer text is cut first."""
    if example.pair is None:
        ids = row["input_ids"]
        return {**row, "input_ids": [*ids[: max_length - 1], ids[-1]]}
    cut = tokenizer(example.prompt, example.pair, truncation="longest_first", max_length=max_length)
    return {**row, **{name: list(cut[name]) for name in row if name != "label"}}


def _finished(row: Row, task: Task, tokenizer: Any, max_length: int) -> Row:
    """The row cut to length, or closed by EOS where the task ends its rows and there is room."""
    ids, labels = row["input_ids"], row["labels"]
    eos, left = tokenizer.eos_token_id, task.format.cut == "left"
    if task.format.ends and (left or len(ids) < max_length) and ids[-1] != eos:
        ids, labels = [*ids, eos], [*labels, eos]
    kept = slice(-max_length, None) if left else slice(max_length)
    return {"input_ids": ids[kept], "labels": labels[kept]}


def _check_one_token(
    task: Task, example: Example, answer: list[bool], spans: Sequence[tuple[int, int]], prompt_end: int, tokenizer: Any
) -> None:
    """The task generates one token, so the answer must be one, and none that began in the prompt."""
    first = answer.index(True) if any(answer) else 0
    if sum(answer) != 1 or spans[first][0] < prompt_end:
        raise ValueError(
            f"{task.name} answers by one token, but {type(tokenizer).__name__} does not keep {example.target!r} apart "
            f"after {example.prefix!r}: expected a model whose tokenizer splits digits, such as model=smollm2_135m"
        )


def _too_long(task: Task, row: int, tokens: int, max_length: int) -> str:
    return (
        f"{task.name}: training row {row} has {tokens} tokens and its answer stands at the end, but "
        f"training.max_length is {max_length}: type training.max_length={tokens} or more"
    )
