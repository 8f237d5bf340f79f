"""Our rows of a probe beside the samples that lm-eval's own command line logs: do they agree, to the last row?"""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def compared(ours: Sequence[Row], samples: Sequence[Row]) -> dict[str, Any]:
    """Of n rows: how many were scored otherwise, and how far apart the answers are.

    `samples` are lm-eval's `--log_samples` lines: one for each row and filter, with numbers as text. For texts `equal`
    counts the same ones; for likelihoods `largest_difference` is in nats. Raises ValueError for other rows.
    """
    theirs = _by_row(samples)
    if [row["of"] for row in ours] != [row["of"] for row in theirs]:
        raise ValueError(f"other rows were asked: {len(ours)} here, {len(theirs)} by lm-eval; expected the same ones")
    metrics = [name for name in theirs[0] if name not in ("of", "said")]
    pairs = list(zip(ours, theirs, strict=True))
    scores = {
        metric: {
            "ours": sum(row[metric] for row in ours) / len(ours),
            "lm_eval": sum(row[metric] for row in theirs) / len(theirs),
            "rows_scored_otherwise": sum(one[metric] != other[metric] for one, other in pairs),
        }
        for metric in metrics
    }
    return {"n": len(ours), **_answers(pairs), "metrics": scores}


def _answers(pairs: Sequence[tuple[Row, Row]]) -> dict[str, Any]:
    said = [(mine, theirs) for one, other in pairs for mine, theirs in zip(one["said"], other["said"], strict=True)]
    if isinstance(said[0][0], str):
        return {"answers": len(said), "equal": sum(mine == theirs for mine, theirs in said)}
    numbers = [(mine[0], float(theirs[0])) for mine, theirs in said]
    return {
        "answers": len(numbers),
        "equal": sum(mine == theirs for mine, theirs in numbers),
        "largest_difference": max(abs(mine - theirs) for mine, theirs in numbers),
    }


def _by_row(samples: Sequence[Row]) -> list[dict[str, Any]]:
    """lm-eval's lines, one a row, under our names."""
    names = {"strict-match": "_strict", "flexible-extract": "_flexible"}
    rows: dict[int, dict[str, Any]] = {}
    for sample in samples:
        row = rows.setdefault(sample["doc_id"], {"of": sample["doc_hash"], "said": [one[0] for one in sample["resps"]]})
        row |= {metric + names.get(sample["filter"], ""): sample[metric] for metric in sample["metrics"]}
    return [rows[number] for number in sorted(rows)]
