"""The scripts started with a Python that has not the project's dependencies."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("script", ["train.py", "eval.py", "scripts/export.py", "scripts/tables.py"])
def test_a_bare_python_is_told_what_to_type(script, repository):
    # -S: without site-packages.
    done = subprocess.run([sys.executable, "-S", script, "--help"], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert ". .venv/bin/activate" in done.stderr
