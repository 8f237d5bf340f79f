"""The name that was probably meant, out of all that exist."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

ALIKE = 0.6  # below this a suggestion misleads more than it helps
MANY = 12  # names in one line


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `name`, or None: `aplha` finds `method.config.alpha`, for last parts count most."""
    scored = [(likeness(name, one), one) for one in candidates]
    best = max(scored, default=(0.0, ""), key=lambda pair: (pair[0], -len(pair[1])))
    return best[1] if best[0] >= ALIKE else None


def likeness(name: str, candidate: str) -> float:
    """How alike two dotted or slashed names are, in [0, 1.1]; a shared first part decides between equals."""
    parts, others = _parts(name), _parts(candidate)
    if not parts or not others:
        return 0.0
    last = 0.95 * _word_likeness(parts[-1], others[-1])
    if len(parts) > 1 and parts[0] == others[0]:  # what they share says nothing of the rest
        return max(_ratio(".".join(parts[1:]), ".".join(others[1:])), last) + 0.1
    return max(_ratio(name, candidate), last)


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The end of an error line: the nearest name, or else the names there are."""
    known = sorted(candidates)
    found = nearest(name, known)
    if found:
        return f"did you mean {found}?"
    return f"there are {', '.join(known)}" if len(known) <= MANY else f"there are {len(known)} others: see --help"


def _word_likeness(word: str, other: str) -> float:
    word, other = word.lower(), other.lower()
    if _initials(word) == other or _initials(other) == word:  # learning_rate and lr, weight_decay and wd
        return 0.9
    if min(len(word), len(other)) >= 3 and (word in other or other in word):
        return max(0.8, _ratio(word, other))
    return _ratio(word, other)


def _initials(word: str) -> str:
    letters = [part[0] for part in word.split("_") if part]
    return "".join(letters) if len(letters) > 1 else ""


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower(), other.lower(), autojunk=False).ratio()


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[./]", name) if part]
