"""Reading the option out of a response to a commonsense question: as LLM-Adapters does, and strictly.

As LLM-Adapters does (AGI-Edgerunners/LLM-Adapters 8166572): the first of the data set's words anywhere, case-sensitive
and also inside other words, so that "untrue" is true and "answer10" is answer1.

Strict: only what the response states as its answer counts, as a whole word, up to its end; of several statements the
last, and a statement of two options is none. Capitals do not matter.
"""

import re
from collections.abc import Sequence

from tombola.tasks.responses import JOINED, paper_response, until_end

RESPONSE = "the correct answer is "  # what training rows answer with, before the option
# The words of BoolQ; PIQA; SIQA, ARC and OBQA; HellaSwag; WinoGrande.
WORDS = (
    ("true", "false"),
    ("solution1", "solution2"),
    ("answer1", "answer2", "answer3", "answer4", "answer5"),
    ("ending1", "ending2", "ending3", "ending4"),
    ("option1", "option2"),
)

_ANSWER_FORMAT = re.compile(r"Answer format: *(\S+)\s*$")
_STATED = re.compile(r"\b(?:answer|solution|ending|option)\s*(?:is|:|=)", re.IGNORECASE)
_OPENING = r"[\s:=*(\[\"'`]*"
_CLOSING = r"(?:[*)\].,:;!\"'`]|\s*$|\s*\n)"


def allowed_options(instruction: str) -> tuple[str, ...]:
    """The options that an instruction's closing "Answer format: a/b" lists; none if it has no such list of known words.

    A row's own list matters: of ARC's rows some have three options and some five.
    """
    found = _ANSWER_FORMAT.search(instruction)
    listed = tuple(found.group(1).split("/")) if found else ()
    return listed if any(set(listed) <= set(words) for words in WORDS) else ()


def option_as_paper(response: str, allowed: Sequence[str]) -> str:
    """The first word anywhere of the data set that has the `allowed` options, be it allowed or not; "" if none."""
    words = next(words for words in WORDS if allowed[0] in words)
    found = re.search("|".join(words), paper_response(response))
    return found.group() if found else ""


def option_strict(response: str, allowed: Sequence[str]) -> str:
    """The `allowed` option in the last statement of an answer ("answer is", "answer:"); "" if none is stated.

    A response that opens with nothing but an option ("answer2", "True.") and names no other states it.
    """
    text = until_end(response)
    option = rf"(?P<option>{'|'.join(allowed)})\b"
    statement = re.compile(_OPENING + option, re.IGNORECASE)
    stated = [found for part in _STATED.split(text)[1:] if (found := statement.match(part))]
    if stated:
        last = stated[-1]
        another = re.compile(rf"{JOINED}(?:{'|'.join(allowed)})\b", re.IGNORECASE)
        return "" if another.match(last.string, last.end()) else last.group("option").lower()
    alone = re.match(_OPENING + option + _CLOSING, text, re.IGNORECASE)
    named = {word.lower() for word in re.findall(rf"\b(?:{'|'.join(allowed)})\b", text, re.IGNORECASE)}
    return alone.group("option").lower() if alone and len(named) == 1 else ""
