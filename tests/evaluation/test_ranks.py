import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import torch
from tombola.evaluation import AnswerFile, answer
from tombola.models import load_host
from tombola.tasks import Example, Generation, TextFormat
from tombola_cli.config.compose import compose

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
host = load_host(compose(["model=tiny_llama"])["model"], kind="generate", labels=0, seed=0)
task = SimpleNamespace(name="t", version=1, answers_by="generate", generation=Generation(8), format=TextFormat())
examples = [Example("x" * n, "", "") for n in range(1, 30)]
options = dict(token_budget=100)
file = AnswerFile(Path(sys.argv[1]) / "t-test.jsonl", "w", rank=rank)
shared = answer(host.net, task, examples, host.processor, answers=file, rank=rank, world_size=2, **options)
alone = answer(host.net, task, examples, host.processor, **options)
(Path(sys.argv[1]) / f"same-{rank}.json").write_text(json.dumps([shared == alone, len(shared)]))
torch.distributed.destroy_process_group()
"""


@pytest.mark.recipe
def test_two_processes_answer_as_one_does(repository, tmp_path):
    (tmp_path / "ranks.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run(
        [*command, str(tmp_path / "ranks.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    for rank in (0, 1):
        assert json.loads((tmp_path / f"same-{rank}.json").read_text()) == [True, 29]
    written = [len((tmp_path / name).read_text().splitlines()) - 1 for name in ("t-test.jsonl", "t-test.rank1.jsonl")]
    assert sum(written) == 29
    assert min(written) > 0
