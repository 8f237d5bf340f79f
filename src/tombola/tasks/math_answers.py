"""Reading the answer out of a response to a math question: as LLM-Adapters does, and strictly.

As LLM-Adapters does (AGI-Edgerunners/LLM-Adapters 8166572, evaluate.py): all commas are deleted, and the last number
anywhere is the answer; for letters, the first capital A to E anywhere is, be it that of "According".

Strict: only what the response states as its answer counts, up to its end.
"""

import math
import re

TOLERANCE = 1e-3  # of both: LLM-Adapters' `miss`
NO_NUMBER = math.inf

_ANY_NUMBER = re.compile(r"-?\d+\.?\d*")
_ANY_LETTER = re.compile(r"A|B|C|D|E")

# A response is over at an end-of-text mark, or where the model goes on to write the next prompt.
_END = re.compile(r"</s>|<\|(?:endoftext|end_of_text|im_end|eot_id|end)\|>|###\s*(?:Instruction|Response|Input)\b")
_STATED = re.compile(r"####|\banswer\s*(?:is|:|=)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|\.\s")
# 1,234.5 | 12 | 3/4 | .5, after a sign and a mark of currency.
_NUMBER = re.compile(
    r"(?P<sign>[-−])?\s?[$€£]?\s?(?P<value>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:\s?/\s?(?P<divisor>\d+))?(?![\d/])"
)
_LETTER = re.compile(r"\s*[:=]?\s*(?:option\s+)?[\s*(\[\"'$]*(?P<letter>[A-E])\b(?!['’])")
_LONE_LETTER = re.compile(r"[\s*(\[\"']*(?P<letter>[A-E])(?:[\s*)\].:\"']|$)")


def number_as_paper(response: str) -> float:
    """The last number anywhere, infinity if there is none."""
    numbers = _ANY_NUMBER.findall(_paper_response(response).replace(",", ""))
    return float(numbers[-1]) if numbers else NO_NUMBER


def letter_as_paper(response: str) -> str:
    """The first capital A to E anywhere, "" if there is none."""
    found = _ANY_LETTER.search(_paper_response(response))
    return found.group() if found else ""


def number_strict(response: str) -> float:
    """The number in the last statement of an answer ("answer is", "answer:", "####"); infinity if none is stated.

    A response of nothing but a number states it. 1,234 and 3/4 are numbers; a percent sign is left out.
    """
    text = _until_end(response)
    stated = _statements(text)
    if stated:
        sentence = _SENTENCE_END.split(stated[-1].strip())[0]
        found = _NUMBER.search(sentence.rsplit("=", 1)[-1])  # "49 - 34 = 15" states 15
        return _value(found) if found else NO_NUMBER
    alone = _NUMBER.match(text.strip())
    return _value(alone) if alone and not text.strip()[alone.end() :].strip(" .%") else NO_NUMBER


def letter_strict(response: str) -> str:
    """The option in the last statement of an answer; "" if none is stated.

    A response that opens with nothing but the option ("C", "(C)", "C. 23") states it.
    """
    text = _until_end(response)
    letters = [found.group("letter") for statement in _statements(text) if (found := _LETTER.match(statement))]
    if letters:
        return letters[-1]
    alone = _LONE_LETTER.match(text)
    return alone.group("letter") if alone else ""


def is_right(gold: str | float, read: str | float) -> bool:
    """Numbers agree to 0.001, letters exactly."""
    if isinstance(gold, str) or isinstance(read, str):
        return gold == read
    return abs(gold - read) <= TOLERANCE


def _paper_response(response: str) -> str:
    """LLM-Adapters splits at "### Response:", so that a second one ends the response; nothing else does."""
    return response.split("### Response:")[0].strip()


def _until_end(response: str) -> str:
    found = _END.search(response)
    return response[: found.start()] if found else response


def _statements(text: str) -> list[str]:
    """What follows each statement of an answer."""
    return _STATED.split(text)[1:]


def _value(found: re.Match[str]) -> float:
    value = float(found.group("value").replace(",", ""))
    divisor = found.group("divisor")
    if divisor is not None:
        value = value / int(divisor) if int(divisor) else NO_NUMBER
    return -value if found.group("sign") else value
