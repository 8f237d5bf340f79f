"""What LoRA and its family train on the papers' models, counted from the recipes on the meta device."""

import pytest

from tombola.models import plan
from tombola_cli.config.compose import compose

LLAMA_2, LLAMA_3 = 56_098_816, 56_623_104  # LoRA r=32 on q, k, v, up and down: 0.83 % and 0.70 % (PiLoRA, table 1)
DIRECTIONS = 8 * 5 * 32  # of five layers in each of 32 blocks
SMOLLM2 = ["model=smollm2_1b7", "task=textual_mnist"]


def planned(*words):
    return plan(compose(list(words)))


@pytest.mark.parametrize(
    ("method", "model", "task", "trainable"),
    [
        ("lora", "llama2_7b", "commonsense", LLAMA_2),
        ("pissa", "llama2_7b", "commonsense", LLAMA_2),
        ("milora", "llama2_7b", "commonsense", LLAMA_2),
        ("lora_dash", "llama2_7b", "commonsense", LLAMA_2 + DIRECTIONS),
        ("milora", "llama3_8b", "commonsense", LLAMA_3),
        ("lora_dash", "llama3_8b", "commonsense", LLAMA_3 + DIRECTIONS),
        ("dora", "llama3_8b", "commonsense", 57_409_536),
        ("dora", "llama3_8b", "math", 57_409_536),
        ("dora", "roberta_base", "glue/cola", 313_344),
        ("qlora", "smollm2_1b7", "textual_mnist", 18_087_936),
    ],
)
def test_recipes_train_as_many_numbers_as_the_papers_print(method, model, task, trainable):
    assert planned(f"method={method}", f"model={model}", f"task={task}").trainable == trainable


@pytest.mark.parametrize(("r", "trainable"), [(1, 1_130_496), (4, 4_521_984), (8, 9_043_968)])
def test_rigsas_qlora_at_its_other_ranks(r, trainable):
    assert planned("method=qlora", *SMOLLM2, f"method.config.r={r}").trainable == trainable


@pytest.mark.parametrize(("double", "bits"), [("true", 4 + 8 / 64 + 32 / (64 * 256)), ("false", 4 + 32 / 64)])
def test_a_base_in_four_bits_is_planned_with_its_scales(double, bits):
    """Blocks of 64 with a scale each, of which 256 share a second one (QLoRA, section 3: 0.127 and 0.5 bits more)."""
    linear, embedding = 1_610_612_736, 49_152 * 2048
    four = planned("method=qlora", *SMOLLM2, f"method.double_quantisation={double}")
    norms = four.base - linear - embedding
    trained = 4 * four.trainable
    assert four.memory.weights == pytest.approx(linear * bits / 8 + 2 * (embedding + norms) + trained, abs=1)
    assert planned("method=lora", *SMOLLM2).memory.weights > 2 * (linear + embedding)


def test_lora_on_clips_vision_tower():
    """All linear layers, r=8: 1.49 % of tower and adapter (PiLoRA, table 3)."""
    made = planned("method=lora", "model=clip_vit_b32", "task=vision/cars", "method.config.r=8")
    assert made.trainable == 1_327_104
    assert round(100 * made.trainable / (made.base + made.trainable), 2) == 1.49


def test_what_is_saved_is_a_plain_lora_of_the_larger_rank():
    """MiLoRA's of rank 2r, LoRA-Dash's of rank r + directions; each with as many numbers for a rank as LoRA has."""
    words = ["model=llama3_8b", "task=commonsense"]
    assert planned("method=milora", *words).stored == 2 * LLAMA_3
    assert planned("method=lora_dash", *words).stored == LLAMA_3 // 32 * (32 + 8)


@pytest.mark.parametrize(
    ("method", "more"), [("pissa", 0), ("milora", 0), ("rslora", 0), ("shira", 0), ("dora", 384), ("lora_dash", 8)]
)
def test_on_minilm_all_have_loras_size(method, more):
    config = compose([f"method={method}", "model=minilm", "task=textual_digits"])
    assert plan(config).trainable == 18 * (8 * (384 + 384) + more)
