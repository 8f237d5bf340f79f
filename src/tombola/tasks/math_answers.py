"""Reading the answer out of a response to a math question: as LLM-Adapters does, and strictly.

As LLM-Adapters does (AGI-Edgerunners/LLM-Adapters 8166572, evaluate.py): all commas are deleted, and the last number
anywhere is the answer; for letters, the first capital A to E anywhere is, be it that of "According".

Strict: only what the response states as its answer counts, up to its end; of several statements the last, and a
statement of two answers ("A or B") is none.
"""

import math
import re

from tombola.tasks.responses import JOINED, paper_response, sentences, until_end

TOLERANCE = 1e-3  # of both: LLM-Adapters' `miss`
NO_NUMBER = math.inf

_ANY_NUMBER = re.compile(r"-?\d+\.?\d*")
_ANY_LETTER = re.compile(r"A|B|C|D|E")

_STATED = re.compile(r"####|\banswer\s*(?:is|:|=)", re.IGNORECASE)
# 1,234.5 | 12 | 3/4 | .5, after a sign and a mark of currency.
_NUMBER = re.compile(
    r"(?P<sign>[-−])?\s?[$€£]?\s?(?P<value>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:\s?/\s?(?P<divisor>\d+))?(?![\d/])"
)
_ANOTHER_NUMBER = re.compile(r"\s+(?:or|and)\s+" + _NUMBER.pattern)
_LETTER = re.compile(r"\s*[:=]?\s*(?:option\s+)?[\s*(\[\"'$]*(?P<letter>[A-E])\b(?!['’])")
_LONE_LETTER = re.compile(r"[\s*(\[\"']*(?P<letter>[A-E])(?:[*)\].:\"']|\s*$)")  # not the "A" of "A car goes ..."
_ANOTHER_LETTER = re.compile(rf"{JOINED}[A-E]\b")


def number_as_paper(response: str) -> float:
    """The last number anywhere, infinity if there is none."""
    numbers = _ANY_NUMBER.findall(paper_response(response).replace(",", ""))
    return float(numbers[-1]) if numbers else NO_NUMBER


def letter_as_paper(response: str) -> str:
    """The first capital A to E anywhere, "" if there is none."""
    found = _ANY_LETTER.search(paper_response(response))
    return found.group() if found else ""


def number_strict(response: str) -> float:
    """The number in the last statement of an answer ("answer is", "answer:", "####"); infinity if none is stated.

    A response of nothing but a number states it. 1,234 and 3/4 are numbers; a percent sign is left out.
    """
    text = until_end(response)
    stated = _statements(text)
    if stated:
        claim = sentences(stated[-1].strip())[0].rsplit("=", 1)[-1]  # "49 - 34 = 15" states 15
        found = _NUMBER.search(claim)
        return _value(found) if found and not _ANOTHER_NUMBER.match(claim, found.end()) else NO_NUMBER
    alone = _NUMBER.match(text.strip())
    return _value(alone) if alone and not text.strip()[alone.end() :].strip(" .%") else NO_NUMBER


def letter_strict(response: str) -> str:
    """The option in the last statement of an answer; "" if none is stated.

    A response that opens with nothing but the option ("C", "(C)", "C. 23") states it.
    """
    text = until_end(response)
    stated = [found for statement in _statements(text) if (found := _LETTER.match(statement))]
    found = stated[-1] if stated else _LONE_LETTER.match(text)
    if not found or _ANOTHER_LETTER.match(found.string, found.end("letter")):
        return ""
    return found.group("letter")


def is_right(gold: str | float, read: str | float) -> bool:
    """Numbers agree to 0.001, letters exactly."""
    if isinstance(gold, str) or isinstance(read, str):
        return gold == read
    return abs(gold - read) <= TOLERANCE


def _statements(text: str) -> list[str]:
    """What follows each statement of an answer."""
    return _STATED.split(text)[1:]


def _value(found: re.Match[str]) -> float:
    value = float(found.group("value").replace(",", ""))
    divisor = found.group("divisor")
    if divisor is not None:
        value = value / int(divisor) if int(divisor) else NO_NUMBER
    return -value if found.group("sign") else value
