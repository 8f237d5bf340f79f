"""An evaluation that is killed again and again, in the midst of batches, answers as one that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Argument: a folder, and how many forward passes are survived (0: all). The answers go to answers.json.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from tombola.evaluation import AnswerFile, answer
from tombola.models import load_host
from tombola.tasks import Example, Generation, TextFormat
from tombola_cli.config.compose import compose

folder, survived = Path(sys.argv[1]), int(sys.argv[2])
host = load_host(compose(["model=tiny_llama"])["model"], kind="generate", labels=0, seed=0)
passes, forward = [], host.net.forward

def until_killed(*args, **inputs):
    passes.append(1)
    if len(passes) == survived:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(*args, **inputs)

host.net.forward = until_killed
found = {}
for kind in ("generate", "choose"):
    task = SimpleNamespace(name="t", version=1, answers_by=kind, generation=Generation(8), format=TextFormat())
    examples = [Example("x" * (number % 7 + 1) + str(number), "", "", (" yes", " perhaps")) for number in range(20)]
    file = AnswerFile(folder / f"{kind}.jsonl", "w")
    found[kind] = answer(host.net, task, examples, host.processor, token_budget=80, answers=file)
(folder / "answers.json").write_text(json.dumps([found, len(passes)]))
"""


def run(repository: Path, folder: Path, survived: int) -> int:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder), str(survived)]
    return subprocess.run(command, env=environment, timeout=300).returncode


def answered(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


@pytest.mark.recipe
def test_kills_in_the_midst_of_batches_leave_no_trace(repository, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run(repository, undisturbed, 0) == 0
    expected, passes = json.loads((undisturbed / "answers.json").read_text())
    kept = 0
    for survived in (3, 12, 9, 21):
        before = answered(killed)
        assert run(repository, killed, survived) == -9
        after = answered(killed)
        assert all(after[name].startswith(content) for name, content in before.items()), "what was answered stays"
        kept = sum(content.count(b"answer") for content in after.values())
    assert 10 < kept < 40
    assert run(repository, killed, 0) == 0
    found, rest = json.loads((killed / "answers.json").read_text())
    assert found == expected
    assert answered(killed) == answered(undisturbed)  # to the byte, in the same order
    assert rest < passes / 2, "only what was missing was asked"
