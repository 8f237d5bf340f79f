import gc
import weakref

import pytest
import torch
from omegaconf import OmegaConf
from peft import LoraConfig, ShiraConfig

from tombola.methods import Adapter
from tombola.methods.attach import attach, complete, forget_shira_layers


def start_of(host, seed, config):
    return {name: p.clone() for name, p in attach(host, config, seed=seed).named_parameters() if p.requires_grad}


def test_initial_values_depend_on_the_seed_alone(host_of):
    config = LoraConfig(r=2, target_modules=["q_proj"])
    first = start_of(host_of("llama"), 1, config)
    torch.manual_seed(99)
    torch.rand(123)
    again, other = start_of(host_of("llama"), 1, config), start_of(host_of("llama"), 2, config)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_the_global_random_state_is_put_back(host_of):
    host = host_of("llama")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    attach(host, LoraConfig(r=2, target_modules=["q_proj"]), seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_the_given_config_is_left_as_it_was(host_of):
    config = LoraConfig(r=2, target_modules=["query"])
    before = config.to_dict()
    attach(host_of("roberta"), config, seed=0)
    assert config.to_dict() == before


@pytest.mark.parametrize("family", ["roberta", "vit"])
def test_the_head_is_trained_where_the_config_is_silent(host_of, targets, family):
    model = attach(host_of(family), LoraConfig(r=2, target_modules=targets[family]), seed=0)
    head = [name for name, p in model.named_parameters() if "classifier.modules_to_save" in name and p.requires_grad]
    assert head
    assert not [n for n, p in model.named_parameters() if "original_module" in n and p.requires_grad]


def test_what_the_config_says_wins_over_the_host(host_of):
    completed = complete(LoraConfig(task_type="FEATURE_EXTRACTION", modules_to_save=[]), host_of("roberta"))
    assert completed.task_type == "FEATURE_EXTRACTION"
    assert completed.modules_to_save == []


def test_hydras_containers_become_plain(host_of):
    fields = OmegaConf.create({"target_modules": ["${name}_proj"], "rank_pattern": {"q_proj": 4}, "name": "q"})
    config = LoraConfig(r=2, target_modules=fields.target_modules, rank_pattern=fields.rank_pattern)
    completed = complete(config, host_of("llama"))
    assert completed.target_modules == ["q_proj"]
    assert type(completed.rank_pattern) is dict


def test_the_config_names_the_model_and_not_its_folder(host_of):
    model = attach(host_of("llama"), LoraConfig(r=2, target_modules=["q_proj"]), seed=0)
    assert model.peft_config["default"].base_model_name_or_path == "tiny/llama"


def test_shira_layers_are_let_go_after_fit(host_of, trainer_of):
    model = Adapter(ShiraConfig(r=1, target_modules=["q_proj"])).fit(host_of("llama"), trainer_of("llama"))
    alive = weakref.ref(next(m for m in model.modules() if hasattr(m, "shira_weight")))
    del model
    gc.collect()
    assert alive() is None


def test_shira_layers_are_kept_without_forgetting(host_of, batch_of):
    model = attach(host_of("llama"), ShiraConfig(r=1, target_modules=["q_proj"]), seed=0)
    model(**batch_of("llama"))
    alive = weakref.ref(next(m for m in model.modules() if hasattr(m, "shira_weight")))
    del model
    gc.collect()
    assert alive() is not None, "PEFT no longer leaks: forget_shira_layers can go"
    forget_shira_layers()
    gc.collect()
    assert alive() is None
