"""Responses written by hand to cover the traps of either reading."""

import gzip
import json
import math

import pytest

from tombola.tasks.math_answers import is_right, letter_as_paper, letter_strict, number_as_paper, number_strict

NONE = math.inf

# response, as LLM-Adapters reads it, strictly
NUMBERS = [
    ("She has 4 + 3 = 7 apples. The answer is 7.", 7, 7),
    ("The answer is 17.", 17, 17),  # a full stop is no decimal point
    ("The answer is 17.50", 17.5, 17.5),
    ("So he paid 1,234 dollars. The answer is 1,234.", 1234, 1234),
    ("The answer is 1,234,567.89 dollars.", 1234567.89, 1234567.89),
    ("The answer is -5.", -5, -5),
    ("The answer is $18.", 18, 18),
    ("The answer is -$18.", 18, -18),  # the paper's pattern wants the minus beside the digit
    ("The answer is 25%.", 25, 25),
    ("The answer is 0.25, that is 25%.", 25, 0.25),
    ("The answer is 3/4.", 4, 0.75),  # a fraction is one number
    ("The answer is 1/0.", 0, NONE),
    ("I do not know.", NONE, NONE),
    ("", NONE, NONE),
    ("The answer is unknown.", NONE, NONE),
    ("There are 3 cats and 4 dogs.", 4, NONE),  # numbers, but none is called the answer
    ("7", 7, 7),
    ("7.", 7, 7),
    ("7 apples and 3 pears", 3, NONE),
    ("The answer is 5. Check: 2 + 3 = 5, and 6 is too many.", 6, 5),
    ("The answer is 5. No, wait. The answer is 6.", 6, 6),  # two answers: the last one stands
    ("The answer is 5 or 6.", 6, NONE),  # two answers in one
    ("The answer is 6. That took 20 minutes.", 20, 6),
    ("The answer is 49 - 34 = 15 customers.", 15, 15),
    ("It is 10-3. The answer is 7.", 7, 7),
    ("The range is 10-3", -3, NONE),  # a dash between numbers is read as a minus
    ("The answer is 72.</s> ### Instruction: add 5 and 6", 6, 72),  # text after the end of text
    ("The answer is 72.<|im_end|>\n<|im_start|>user 9", 9, 72),
    ("The answer is 72.\n\n### Instruction:\nWhat is 3 + 4?", 4, 72),
    ("The answer is 72.\n\n### Response:\nThe answer is 9.", 72, 72),  # the paper splits there as well
    ("#### 42", 42, 42),
    ("Answer: 12 apples", 12, 12),
    ("The ANSWER is: 8", 8, 8),
    ("The answer is .5", 5, 0.5),  # the paper's pattern wants a digit before the point
    ("12,5 is 12.5. The answer is 12.5", 12.5, 12.5),
]

LETTERS = [
    ("The answer is C.", "C", "C"),
    ("The answer is (C).", "C", "C"),
    ("C", "C", "C"),
    ("(D)", "D", "D"),
    ("C. 23 apples", "C", "C"),
    ("B) 40", "B", "B"),
    ("Answer: C", "A", "C"),  # the first capital is that of "Answer"
    ("According to the text, x = 4. The answer is D.", "A", "D"),
    ("Distance = speed x time = 50. The answer is B.", "D", "B"),
    ("Because 3 > 2, the answer is E.", "B", "E"),
    ("A car goes 40 km. The answer is C.", "A", "C"),
    ("Let x be 5. The answer is option D.", "D", "D"),
    ("Let x be 5. The answer is B) 40.", "B", "B"),
    ("the answer is a number near 5", "", ""),  # a small letter is none
    ("The answer is 40.", "", ""),
    ("The answer is Celsius.", "C", ""),
    ("", "", ""),
    ("I think x = 5.", "", ""),
    ("The answer is B. No, wait. The answer is C.", "B", "C"),  # two answers
    ("The answer is A or B.", "A", ""),
    ("The answer is (B) and (C).", "B", ""),
    ("A, B", "A", ""),
    ("The answer is B, because C is too large.", "B", "B"),
    ("A car goes 40 km in 2 hours.", "A", ""),  # an article is no answer
    ("The answer is 40. So the answer is C.", "C", "C"),
    ("The answer is C.</s> The answer is A.", "C", "C"),  # text after the end of text
    ("x = 5</s> The answer is A.", "A", ""),
    ("x = 5.\n### Instruction:\nChoose A", "C", ""),  # the model goes on with a question of its own
    ("**The answer is** E", "E", "E"),
    ("The answer is: **E**", "E", "E"),
    ("Dividing, we get 4, so (B) is right.", "D", ""),  # nothing is called the answer
]


@pytest.mark.parametrize(("response", "paper", "strict"), NUMBERS)
def test_numbers(response, paper, strict):
    assert (number_as_paper(response), number_strict(response)) == (paper, strict)


@pytest.mark.parametrize(("response", "paper", "strict"), LETTERS)
def test_letters(response, paper, strict):
    assert (letter_as_paper(response), letter_strict(response)) == (paper, strict)


@pytest.mark.parametrize(
    ("gold", "read", "right"),
    [(7.0, 7.0009, True), (7.0, 7.002, False), (7.0, math.inf, False), ("C", "C", True), ("C", "", False)],
)
def test_right_within_a_thousandth(gold, read, right):
    assert is_right(gold, read) is right


@pytest.mark.parametrize(
    "mark", ["</s>", "<unk>", "<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<|end|>"]
)
def test_special_tokens_change_no_reading(mark):
    """LLM-Adapters keeps them in the text of a math response; our answers have none."""
    for response in ("The answer is 17.", "I do not know."):
        assert number_as_paper(f"{response}{mark}") == number_as_paper(response)
        assert letter_as_paper(f"{response}{mark}") == letter_as_paper(response)


@pytest.mark.parametrize("folder", ["MultiArith", "gsm8k", "AddSub", "AQuA", "SingleEq", "SVAMP", "mawps"])
def test_every_gold_answer_in_the_answer_format_is_right_in_both_readings(data_folder, folder):
    rows = json.loads((data_folder / "llm_adapters/dataset" / folder / "test.json").read_text())
    wrong = []
    for row in rows:
        response = f"The answer is {row['answer']}."
        if folder == "AQuA":
            right = letter_as_paper(response) == letter_strict(response) == row["answer"]
        else:
            gold = float(row["answer"])
            right = is_right(gold, number_as_paper(response)) and is_right(gold, number_strict(response))
        wrong += [] if right else [row["answer"]]
    assert len(rows) > 200
    assert wrong == []


def test_the_strict_reading_finds_the_answer_of_every_human_rationale(data_folder):
    """10,201 rationales, of which the paper's reading gets 751 of the 2,728 with letters wrong."""
    packed = (data_folder / "llm_adapters/ft-training_set/math_human_10k.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(packed).decode().strip().split("\n")]
    letters = [row for row in rows if row["dataset"] == "AQuA"]
    numbers = [row for row in rows if row["dataset"] == "gsm8k"]
    assert [row for row in letters if letter_strict(row["output"]) != row["answer"]] == []
    gold = [float(row["answer"].replace(",", "")) for row in numbers]
    assert [number_strict(row["output"]) for row in numbers] == pytest.approx(gold)
    assert sum(letter_as_paper(row["output"]) != row["answer"] for row in letters) == 751
