import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, ShiraConfig
from safetensors.torch import load_file

from tombola.methods import Adapter

CONFIGS = {
    "lora": lambda targets: LoraConfig(r=2, target_modules=targets),
    "dora": lambda targets: LoraConfig(r=2, target_modules=targets, use_dora=True),
    "rslora": lambda targets: LoraConfig(r=2, target_modules=targets, use_rslora=True),
    "pissa": lambda targets: LoraConfig(r=2, target_modules=targets, init_lora_weights="pissa"),
    "shira": lambda targets: ShiraConfig(r=1, target_modules=targets, random_seed=4),
}


@pytest.mark.parametrize("family", ["llama", "roberta", "vit"])
@pytest.mark.parametrize("method", sorted(CONFIGS))
def test_what_is_loaded_answers_as_what_was_trained(host_of, trainer_of, batch_of, targets, tmp_path, method, family):
    adapter, trainer, batch = Adapter(CONFIGS[method](targets[family])), trainer_of(family), batch_of(family)
    untrained = host_of(family).net(**batch).logits
    model = adapter.fit(host_of(family), trainer)
    adapter.save(model, tmp_path)
    loaded = adapter.load(host_of(family), tmp_path)
    assert trainer.phases == ["train"]
    assert not torch.allclose(model(**batch).logits, untrained, atol=1e-3)
    # PiSSA's saved adapter stands on the original weights, its trained one on the residual: equal up to rounding.
    assert torch.allclose(loaded(**batch).logits, model(**batch).logits, atol=1e-5 if method == "pissa" else 0)
    assert not loaded.training


@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_only_adapter_and_head_are_trained(host_of, trainer_of, targets, family):
    trainer = trainer_of(family)
    Adapter(CONFIGS["lora"](targets[family])).fit(host_of(family), trainer)
    assert trainer.trained
    assert all("lora_" in name or "modules_to_save" in name for name in trainer.trained)


def test_saved_twice_is_the_same_bytes_in_any_process(tmp_path, repository):
    """Sets are written in hash order, which PYTHONHASHSEED changes."""
    script = (
        "import sys, torch, types; from pathlib import Path; from peft import LoraConfig\n"
        "from transformers import BertConfig, BertForSequenceClassification\n"
        "from tombola.methods.attach import attach; from tombola.methods.portable import save_adapter\n"
        "net = BertForSequenceClassification(BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1,"
        " vocab_size=9, intermediate_size=8))\n"
        "host = types.SimpleNamespace(net=net, task_type='SEQ_CLS', head=('classifier',), name='tiny/bert')\n"
        "torch.nn.init.zeros_(net.classifier.weight); torch.nn.init.zeros_(net.classifier.bias)\n"
        "config = LoraConfig(r=1, target_modules=['query', 'key', 'value'], exclude_modules=['x', 'y', 'z'])\n"
        "save_adapter(attach(host, config, seed=0), Path(sys.argv[1]))\n"
    )
    for seed in ("1", "2"):
        environment = {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(repository / "src"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        subprocess.run([sys.executable, "-c", script, str(tmp_path / seed)], check=True, env=environment)
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_the_folder_names_the_model_and_no_path_of_this_machine(host_of, trainer_of, tmp_path):
    adapter = Adapter(CONFIGS["lora"](["query", "value"]))
    adapter.save(adapter.fit(host_of("roberta"), trainer_of("roberta")), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny/roberta"
    assert config["target_modules"] == ["query", "value"]
    assert config["modules_to_save"] == ["classifier", "score"]
    card = (tmp_path / "README.md").read_text()
    assert "base_model: tiny/roberta" in card
    assert "/somewhere" not in card + json.dumps(config)
    assert "import tombola" not in card, "plain PEFT loads a LoRA"


def test_saving_asks_nobody_about_the_embeddings(host_of, trainer_of, tmp_path):
    adapter = Adapter(LoraConfig(r=1, target_modules=["q_proj", "embed_tokens"]))
    adapter.save(adapter.fit(host_of("llama"), trainer_of("llama")), tmp_path)
    assert not [
        name for name in load_file(tmp_path / "adapter_model.safetensors") if name.endswith("base_layer.weight")
    ]


def test_plain_peft_loads_it_again(host_of, trainer_of, batch_of, tmp_path):
    adapter = Adapter(CONFIGS["pissa"](["query", "value"]))
    model = adapter.fit(host_of("roberta"), trainer_of("roberta"))
    adapter.save(model, tmp_path)
    plain = PeftModel.from_pretrained(host_of("roberta").net, str(tmp_path)).eval()
    batch = batch_of("roberta")
    assert torch.allclose(plain(**batch).logits, model(**batch).logits, atol=1e-5)
