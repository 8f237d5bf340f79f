"""Mistakes on the command line of `scripts/bench.py`, said before anything is measured."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pairs", "1"), "--pairs of 2 or more"),
        (("--layers", "0"), "--layers of 1 or more"),
        (("--dtypes", "float64"), "invalid choice: 'float64'"),
    ],
)
def test_a_mistake_is_a_line_and_no_traceback(words, said, repository):
    script = [sys.executable, "scripts/bench.py", *words]
    # A script that goes on into its work, which takes minutes, fails here and not at the end of it.
    done = subprocess.run(script, cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
