"""Parts of a generated response that the scorers of LLM-Adapters' suites read."""

import re

ENDS_RESPONSE = "### Response:"  # no reading goes beyond it
# A response is over at an end-of-text mark, or where the model goes on to write the next prompt.
_END = re.compile(r"</s>|<\|(?:endoftext|end_of_text|im_end|eot_id|end)\|>|###\s*(?:Instruction|Response|Input)\b")
# What joins a second answer to a first: "A or B", "(A) and (B)", "answer1/answer2".
JOINED = r"[\s*)\].\"']*(?:[,;/|&]|\bor\b|\band\b)[\s*(\[\"']*(?:or\b|and\b)?[\s*(\[\"']*"


def paper_response(response: str) -> str:
    """LLM-Adapters splits at "### Response:", so that a second one ends the response; nothing else does.

    For math it also keeps special tokens, which we leave out: none of them has a digit or a capital A to E.
    """
    return response.split(ENDS_RESPONSE)[0].strip()


def until_end(response: str) -> str:
    """The response up to its end, by whatever mark."""
    found = _END.search(response)
    return response[: found.start()] if found else response


def sentences(text: str) -> list[str]:
    """Parts between line breaks, and after a full stop and a space."""
    return re.split(r"\n|\.\s", text)
