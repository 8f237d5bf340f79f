"""The committed evidence: every record is whole, keeps its id under today's code, and tells nothing of a machine."""

import json
import re

import pytest

from tombola_cli.records import evaluation_id, read_record, run_id

ABSOLUTE_PATH = re.compile(r"""(?<![^\s=,'"\[({])(?:/|[A-Z]:\\)[\w.]""")


@pytest.fixture(scope="module")
def files(repository):
    found = sorted((repository / "results" / "records").glob("*.json"))
    if not found:
        pytest.skip("results/records has no record yet")
    return found


def test_ids_are_still_what_todays_code_computes(files):
    for path in files:
        record = read_record(path)
        told = record.provenance["model"]
        sources = {name: told[name] for name in ("weights", "data", "probes") if name in told}
        assert record.id == run_id(record.config, sources), f"{path.name}: give a new option a line in LATER"
        assert re.fullmatch(rf"{re.escape(record.id)}(\.\d+)?\.json", path.name)


@pytest.fixture(scope="module")
def evaluations(repository):
    return sorted((repository / "results" / "evaluations").glob("*.json"))


def test_ids_of_evaluations_are_still_what_todays_code_computes(evaluations):
    for path in evaluations:
        record = read_record(path)
        identity = evaluation_id(record.config, record.provenance["model"])
        assert record.id == identity, f"{path.name}: was a field added to its task? it belongs outside while off"
        assert re.fullmatch(rf"{re.escape(record.id)}(\.\d+)?\.json", path.name)


def test_no_record_has_an_absolute_path(files, evaluations):
    for path in [*files, *evaluations]:
        assert ABSOLUTE_PATH.search(json.dumps(json.loads(path.read_text()))) is None, path.name


@pytest.mark.parametrize(
    ("text", "is_path"), [('"a=/x/y"', True), ('"glue/cola https://a.b/c"', False), ('"$HOME/x"', False)]
)
def test_the_search_for_absolute_paths_finds_them(text, is_path):
    assert (ABSOLUTE_PATH.search(text) is not None) is is_path
