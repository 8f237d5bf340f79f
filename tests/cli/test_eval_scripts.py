"""Mistakes on the command lines of `scripts/compare_lm_eval.py` and `scripts/bench_eval.py`."""

import json
import os
import subprocess
import sys

import pytest

# A script as it is run, where lm-eval is not installed: `find_spec` finds nothing for a module that is None.
WITHOUT_LM_EVAL = (
    "import runpy, sys\nsys.modules['lm_eval'] = None\nsys.argv = sys.argv[1:]\n"
    "sys.path.insert(0, 'scripts')\nrunpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture
def said(repository, tmp_path):
    """The exit status of a script, and the one line that it says."""

    def run(*words, before=(), data=None):
        environment = {name: value for name, value in os.environ.items() if name != "TOMBOLA_DATA"}
        environment |= {"TOMBOLA_DATA": str(data)} if data else {}
        done = subprocess.run(
            [sys.executable, *before, *words], cwd=repository, env=environment, capture_output=True, text=True
        )
        assert not done.stdout
        assert done.stderr.count("\n") == 1
        return done.returncode, done.stderr.rstrip()

    return run


def test_a_run_that_lm_eval_cannot_be_compared_on(said, tmp_path):
    folder = tmp_path / "lora-tiny-s0"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"method": {"name": "lora"}}))
    compare = ("scripts/compare_lm_eval.py", f"runs.dir={tmp_path}")
    assert said(*compare, "run=lora") == (2, "error: run=lora is of method=lora; expected one of method=base")
    status, line = said(*compare, "run=zz")
    assert (status, line.startswith("error: run=zz: there is no such run")) == (2, True)
    status, line = said(*compare, "run=lora", "task.dat=x", "tsk=y")
    assert (status, line.startswith("error: tsk=y: there is no such field")) == (2, True)


def test_a_benchmark_without_its_data(said, tmp_path):
    expected = "expected a folder with lm_eval/ and llm_adapters/"
    assert said("scripts/bench_eval.py") == (1, f"error: TOMBOLA_DATA=(not set): {expected}")
    assert said("scripts/bench_eval.py", data=tmp_path) == (1, f"error: TOMBOLA_DATA={tmp_path}: {expected}")


def test_without_lm_eval(said, tmp_path):
    for folder in ("lm_eval", "llm_adapters"):
        (tmp_path / folder).mkdir()
    for script in ("scripts/compare_lm_eval.py", "scripts/bench_eval.py"):
        status, line = said(script, before=("-c", WITHOUT_LM_EVAL), data=tmp_path)
        assert status == 1
        assert line.startswith('error: lm-eval is not installed; pip install "tombola[eval]"')
