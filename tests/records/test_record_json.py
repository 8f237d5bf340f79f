"""Round trip, and every refusal by its text."""

import json
from dataclasses import asdict, replace

import pytest

from tombola_cli.records import RecordError, Score
from tombola_cli.records.record_json import from_dict, from_json, to_json


def test_a_record_survives_the_round_trip(record):
    assert from_json(to_json(record), where="r.json") == record


def test_keys_are_sorted_and_one_a_line(record):
    text = to_json(record)
    keys = list(json.loads(text))
    assert keys == sorted(keys)
    assert '\n  "id": "bola-minilm-textual_digits-s0-0123456789",\n' in text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("id", 3, r"r\.json: id: expected str, got 3"),
        ("status", "fine", r"r\.json: status: expected one of ok, failed, diverged, interrupted, got 'fine'"),
        ("started", "yesterday", r"r\.json: started: expected ISO 8601 with a zone .*, got 'yesterday'"),
        ("finished", "2026-01-31T12:00:00", r"r\.json: finished: expected ISO 8601 with a zone"),
        ("config", [], r"r\.json: config: expected dict, got \[\]"),
        ("scores", {}, r"r\.json: scores: expected list, got \{\}"),
        ("scores.0.value", "high", r"r\.json: scores\[0\]\.value: expected int or float, got 'high'"),
        ("scores.0.value", 47.5, r"r\.json: scores\[0\]\.value: expected a share in \[0, 1\] .*, got 47\.5: / 100\?"),
        ("scores.0.n", True, r"r\.json: scores\[0\]\.n: expected int, got True"),
        ("scores.0.n", 0, r"r\.json: scores\[0\]\.n: expected at least 1 example, got 0"),
        ("scores.0.metric", None, r"r\.json: scores\[0\]\.metric: expected str, got None"),
        ("scores.0.extra", 1, r"r\.json: scores\[0\]: unknown field 'extra'; a record has task, split"),
        ("cost.trainable", 0.5, r"r\.json: cost\.trainable: expected int, got 0\.5"),
        ("cost.peak_bytes", "much", r"r\.json: cost\.peak_bytes: expected int or float or null, got 'much'"),
        ("cost.seconds", 12, r"r\.json: cost\.seconds: expected dict, got 12"),
        ("cost.seconds.train", "12", r"r\.json: cost\.seconds\.train: expected int or float, got '12'"),
        ("ticket.loss", float("nan"), r"r\.json: ticket: loss: expected a finite number, got nan; write null"),
        ("surplus", 1, r"r\.json: unknown field 'surplus'; a record has id, started"),
    ],
)
def test_a_wrong_field_is_named(record, path, value, message):
    data = asdict(record)
    _set(data, path.split("."), value)
    with pytest.raises(RecordError, match=message):
        from_dict(data, where="r.json")


@pytest.mark.parametrize("path", ["status", "scores.0.n", "cost.head", "provenance.commit"])
def test_a_missing_field_is_named(record, path):
    data = asdict(record)
    *parents, name = path.split(".")
    tree = data
    for parent in parents:
        tree = tree[int(parent) if parent.isdigit() else parent]
    del tree[name]
    with pytest.raises(RecordError, match=rf"r\.json.*: the field '{name}' is missing"):
        from_dict(data, where="r.json")


def test_a_torn_file_says_what_to_do(record):
    with pytest.raises(RecordError, match=r"r\.json: not JSON \(.*\); delete the file or restore it from git"):
        from_json(to_json(record)[:-20], where="r.json")


def test_a_failed_run_needs_no_costs_or_scores(record):
    failed = replace(record, status="failed", scores=[], cost={})
    assert from_json(to_json(failed), where="r.json") == failed


def test_a_correlation_may_be_negative_and_a_loss_large(record):
    scores = [Score("glue/cola", "validation", "matthews", -0.1, 9), Score("t", "test", "loss", 2.5, 9)]
    assert from_json(to_json(replace(record, scores=scores)), where="r.json").scores == scores


def test_an_invalid_record_is_not_written_as_text(record):
    with pytest.raises(RecordError, match=r"record 'bola-.*': status: expected one of"):
        to_json(replace(record, status="done"))


def _set(tree, path, value):
    for name in path[:-1]:
        tree = tree[int(name) if name.isdigit() else name]
    tree[path[-1]] = value
