"""What `save` wrote is read by a process that knows PEFT and, for our own tuners alone, `import tombola`."""

import json
import os
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file

SCRIPT = """
import sys
from pathlib import Path
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

folder, ours = Path(sys.argv[1]), sys.argv[2:]
inputs, answers = load_file(folder / "inputs.safetensors"), {}
for adapter in sorted(path for path in folder.glob("*/adapter") if path.parent.name not in ours) + ours:
    if adapter in ours:
        import tombola
        adapter = folder / adapter / "adapter"
    else:
        assert "tombola" not in sys.modules
    base = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    model = PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad():
        answers[adapter.parent.name] = model(**inputs).logits
save_file(answers, folder / "answers.safetensors")
"""


def test_a_fresh_process_gives_the_same_answers(matrix, methods, tmp_path, repository):
    family = "tiny_roberta"
    runs = {name: run for name in methods if (run := matrix.run(name, family)).is_adapter}
    ours = [name for name, run in runs.items() if "import tombola" in (run.saved / "README.md").read_text()]
    assert ours
    assert "lora" not in ours
    for name, run in runs.items():
        run.method.save(run.model, tmp_path / name / "adapter")
        assert json.loads((tmp_path / name / "adapter" / "adapter_config.json").read_text())["inference_mode"]
    matrix.host(family).net.save_pretrained(tmp_path / "base")
    inputs = {key: value for key, value in matrix.batch(family).items() if key != "labels"}
    save_file(inputs, tmp_path / "inputs.safetensors")
    environment = {**os.environ, "PYTHONPATH": str(repository / "src"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), *ours], check=True, env=environment)
    answers = load_file(tmp_path / "answers.safetensors")
    assert answers.keys() == runs.keys()
    for name, run in runs.items():
        tolerance = run.rounding
        torch.testing.assert_close(answers[name], matrix.logits(run.model, family), rtol=tolerance, atol=tolerance)
