"""PiLoRA's recipes are the paper's tables 5 to 7, and train as many numbers as its formula says."""

import pytest

from tombola.models import plan
from tombola_cli.config.compose import compose

LLAMA = {"epochs": 3, "batch_size": 16, "schedule": "linear", "warmup_steps": 100}
SMALL = {"batch_size": 64, "schedule": "cosine", "warmup_steps": 100}
GLUE = {"cola": 2e-4, "sst2": 1e-4, "mrpc": 1e-4, "qqp": 2e-4, "mnli": 1e-4, "qnli": 1e-4, "rte": 2e-4}
VISION = {"cars": 35, "dtd": 76, "eurosat": 12, "gtsrb": 11, "resisc45": 15, "sun397": 14, "svhn": 4}
PAPER = {
    ("llama2_7b", "commonsense"): {**LLAMA, "lr": 2e-4},
    ("llama3_8b", "commonsense"): {**LLAMA, "lr": 1e-4},
    **{
        ("roberta_large", f"glue/{t}"): {**SMALL, "lr": lr, "epochs": 50 if t == "rte" else 10}
        for t, lr in GLUE.items()
    },
    **{("clip_vit_b32", f"vision/{t}"): {**SMALL, "lr": 1e-4, "epochs": epochs} for t, epochs in VISION.items()},
}


def composed(model, task):
    return compose(["method=pilora", f"model={model}", f"task={task}"])


@pytest.mark.parametrize("choice", PAPER, ids="-".join)
def test_a_recipe_is_the_papers(choice):
    config = composed(*choice)
    assert {name: config["training"][name] for name in PAPER[choice]} == PAPER[choice]
    ranks = [config["method"]["config"][name] for name in ("r", "r_minor", "lora_alpha", "lora_dropout")]
    assert ranks == ([32, 2, 64, 0.05] if "llama" in choice[0] else [8, 1, 16, 0.05])


def test_half_of_the_rows_are_the_papers_top_half_on_llama2():
    made = plan(composed("llama2_7b", "commonsense"))
    assert made.trainable == 44_703_744
    assert round(100 * made.trainable / made.base, 2) == 0.66


def test_on_clip_half_of_the_rows_are_a_little_more_than_the_papers_dynamic_share():
    made = plan(composed("clip_vit_b32", "vision/cars"))
    inputs = outputs = 12 * (4 * 768 + 768 + 3072)
    assert made.trainable == 9 * inputs + outputs // 2 * 9
