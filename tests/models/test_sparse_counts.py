"""What the sparse methods train on the papers' models, counted from the recipes on the meta device."""

import pytest

from tombola.models import plan
from tombola_cli.config.compose import compose

SPARTA_LLAMA = ["method=sparta", "model=llama3_8b"]
RIGSA = ["method=rigsa", "model=smollm2_1b7", "task=textual_mnist"]


def planned(*words):
    return plan(compose(list(words)))


@pytest.mark.parametrize("task", ["math", "commonsense"])
def test_spartas_k_is_the_same_for_each_of_llamas_160_layers(task):
    made = planned(*SPARTA_LLAMA, f"task={task}")
    assert made.trainable == 56_623_040 == 160 * 353_894
    assert {kind.trainable for kind in made.kinds} == {32 * 353_894}
    assert made.stored == 2 * made.trainable, "a value and an index each"


@pytest.mark.parametrize("task", ["glue/cola", "glue/stsb"])
def test_sparta_on_roberta_trains_as_many_as_lora(task):
    made = planned("method=sparta", "model=roberta_base", f"task={task}")
    assert made.trainable == 294_912
    assert made.head == 768 * 768 + 768 + (768 + 1) * (1 if task == "glue/stsb" else 2)


def test_rigsa_starts_dense_on_every_linear_layer_of_smollm2():
    made = planned(*RIGSA)
    assert made.trainable - made.gates == 1_610_612_736
    assert made.gates == 24 * 7
    assert made.stored == made.trainable, "a full support stores no index"


def test_rigsas_random_mask_has_the_density_that_its_prunings_reached():
    made = planned("method=random_mask", *RIGSA[1:])
    per_layer = 4 * int(0.0346 * 2048 * 2048) + 3 * int(0.0346 * 2048 * 8192)
    assert made.trainable - made.gates == 24 * per_layer
    assert made.gates == 24 * 7
    assert round(made.trainable / 1e6, 1) == 55.7


@pytest.mark.parametrize("method", ["random_mask", "sparta"])
def test_the_demos_masks_are_as_large_as_lora_of_rank_8(method):
    assert planned(f"method={method}", "model=minilm", "task=textual_digits").trainable == 110_592


@pytest.mark.parametrize("method", ["lota", "lt_sft", "rigsa"])
def test_the_plan_of_a_ticket_is_that_of_its_dense_phase(method):
    made = planned(f"method={method}", "model=minilm", "task=textual_digits")
    assert made.trainable - made.gates == 18 * 384 * 384
