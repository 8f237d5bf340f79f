"""LLM-Adapters' prompt, to the space: AGI-Edgerunners/LLM-Adapters 8166572, finetune.py and evaluate.py.

Its indentation is part of the text. The two files differ in their whitespace, so that a model is asked in a way it was
not trained on: `eval_original` keeps that, `eval_matched` asks as the model was trained, down to the tokens.
"""

from typing import Literal

Variant = Literal["train", "eval_original", "eval_matched"]

INDENT = " " * 16
_PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def alpaca_prompt(instruction: str, variant: Variant) -> str:
    """The text up to the response, which ends in a newline and 16 spaces.

    Training (and `eval_matched`) closes the preamble by two spaces and separates by a line of 16 spaces;
    `eval_original` by one space and an empty line.
    """
    if variant not in ("train", "eval_original", "eval_matched"):
        raise ValueError(f"template variant {variant!r}: expected train, eval_original or eval_matched")
    spaces, separator = (" ", "") if variant == "eval_original" else ("  ", INDENT)
    return (
        f"{_PREAMBLE}{spaces}\n\n"
        f"{INDENT}### Instruction:\n{INDENT}{instruction}\n"
        f"{separator}\n"
        f"{INDENT}### Response:\n{INDENT}"
    )
