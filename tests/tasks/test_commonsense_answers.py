"""Responses written by hand to cover the traps of either reading."""

import pytest

from tombola.tasks.commonsense_answers import allowed_options, option_as_paper, option_strict

TRUTH = ("true", "false")
SOLUTIONS = ("solution1", "solution2")
THREE = ("answer1", "answer2", "answer3")
FOUR = (*THREE, "answer4")
ENDINGS = ("ending1", "ending2", "ending3", "ending4")
BLANKS = ("option1", "option2")

# the row's options, response, as LLM-Adapters reads it, strictly
RESPONSES = [
    (TRUTH, "the correct answer is true", "true", "true"),
    (TRUTH, "The correct answer is: False.", "", "false"),  # the paper's words are in small letters
    (TRUTH, "false", "false", "false"),
    (TRUTH, "True, because ethanol takes energy to make.", "", "true"),
    (TRUTH, "true or false", "true", ""),  # the question's own words
    (TRUTH, "the correct answer is true/false", "true", ""),
    (TRUTH, "That is untrue.", "true", ""),  # inside a word
    (TRUTH, "It is not true that it does. The answer is false.", "true", "false"),
    (TRUTH, "the answer is not true", "true", ""),
    (TRUTH, "yes", "", ""),
    (TRUTH, "", "", ""),
    (SOLUTIONS, "the correct answer is solution2", "solution2", "solution2"),
    (SOLUTIONS, "Solution1 is better, so the correct answer is solution2", "solution2", "solution2"),
    (SOLUTIONS, "the correct solution is solution1", "solution1", "solution1"),
    (SOLUTIONS, "Solution 2", "", ""),  # not the word that was asked for
    (THREE, "the correct answer is answer3", "answer3", "answer3"),
    (THREE, "the correct answer is answer4", "answer4", ""),  # not an option of this row
    (THREE, "the correct answer is answer1 or answer2", "answer1", ""),  # two answers
    (THREE, "the correct answer is answer1, answer2 and answer3", "answer1", ""),
    (THREE, "the correct answer is answer1. No, the correct answer is answer2", "answer1", "answer2"),  # the last one
    (FOUR, "answer2", "answer2", "answer2"),
    (FOUR, "answer2.", "answer2", "answer2"),
    (FOUR, "**answer4**", "answer4", "answer4"),
    (FOUR, "answer1/answer2/answer3/answer4", "answer1", ""),  # the answer format again
    (FOUR, "Answer1: make a plan Answer2: go home Answer3: wait Answer4: run", "", ""),  # the question again
    (FOUR, "answer10", "answer1", ""),
    (FOUR, "the correct answer is answer10", "answer1", ""),
    (FOUR, "the correct answer is to go home", "", ""),
    (FOUR, "2", "", ""),
    (FOUR, "answer3 and answer1 are wrong, so the answer is (answer2).", "answer3", "answer2"),
    (FOUR, "The answer is 'answer2', since plants need light", "answer2", "answer2"),
    (FOUR, "the correct answer is answer2</s> the correct answer is answer1", "answer2", "answer2"),
    (FOUR, "I do not know</s>the correct answer is answer1", "answer1", ""),  # text after the end of text
    (FOUR, "\n\n### Response:\nthe correct answer is answer1", "", ""),  # both end at a second prompt
    (FOUR, "What?\n### Instruction:\nthe correct answer is answer1", "answer1", ""),
    (ENDINGS, "the correct answer is ending4", "ending4", "ending4"),
    (ENDINGS, "the correct ending is ending2.\n\nending3 is not", "ending2", "ending2"),
    (ENDINGS, "This is the unending1 story", "ending1", ""),
    (BLANKS, "the correct answer is option1", "option1", "option1"),
    (BLANKS, "Option2: Maria", "", "option2"),
    (BLANKS, "the correct answer is Maria", "", ""),
]


@pytest.mark.parametrize(("allowed", "response", "paper", "strict"), RESPONSES)
def test_options(allowed, response, paper, strict):
    assert (option_as_paper(response, allowed), option_strict(response, allowed)) == (paper, strict)


@pytest.mark.parametrize(
    ("instruction", "options"),
    [
        ("Is it?\n\nAnswer format: true/false", TRUTH),
        ("Option1: Sarah Option2: Maria Answer format: option1/option2", BLANKS),
        ("Answer1: Answer format: a/b\n\nAnswer format: answer1/answer2/answer3\n", THREE),
        ("Answer format: answer1/answer2\n\nWhat else?", ()),  # it closes the instruction
        ("Which?\n\nAnswer format: yes/no", ()),  # words that no reading knows
        ("Which?\n\nAnswer format: answer1/option2", ()),
        ("Which?", ()),
    ],
)
def test_a_row_says_itself_what_it_allows(instruction, options):
    assert allowed_options(instruction) == options
