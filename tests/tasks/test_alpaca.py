import pytest

from tombola.tasks.alpaca import alpaca_prompt

# Typed from methods of LLM-Adapters 8166572 (finetune.py and evaluate.py); "·" is a space.
TRAIN = """\
Below·is·an·instruction·that·describes·a·task.·Write·a·response·that·appropriately·completes·the·request.··

················###·Instruction:
················Add·2·and·3.
················
················###·Response:
················"""
EVALUATION = """\
Below·is·an·instruction·that·describes·a·task.·Write·a·response·that·appropriately·completes·the·request.·

················###·Instruction:
················Add·2·and·3.

················###·Response:
················"""


@pytest.mark.parametrize(
    ("variant", "text"), [("train", TRAIN), ("eval_matched", TRAIN), ("eval_original", EVALUATION)]
)
def test_the_prompt_is_the_papers_to_the_space(variant, text):
    assert alpaca_prompt("Add 2 and 3.", variant) == text.replace("·", " ")


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="'eval': expected train, eval_original or eval_matched"):
        alpaca_prompt("Add 2 and 3.", "eval")
