import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.adapters.tiny_models import bola, layers, tiny, trainable
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForSequenceClassification

from tombola import BolaConfig
from tombola.adapters.bola_grid import balanced_grid, check_grid, divisors, nearest_grids


@pytest.mark.parametrize(
    ("out_features", "in_features", "grid"),
    [
        (768, 768, (24, 32)),  # RoBERTa-base: BoLA, table 4
        (4096, 4096, (64, 64)),  # Llama-3-8B q: tables 5 and 6, as the next three
        (1024, 4096, (64, 64)),  # k, v
        (14336, 4096, (64, 64)),  # up
        (4096, 14336, (64, 64)),  # down
        (7, 5, (5, 1)),  # both prime
        (1, 1, (1, 1)),
    ],
)
def test_the_balanced_grid_is_the_papers(out_features, in_features, grid):
    assert balanced_grid(out_features, in_features) == grid


@pytest.mark.parametrize(
    "shape", [(768, 768), (192, 576), (3072, 768), (17, 90), (2, 768), (11008, 4096), (30522, 384)]
)
def test_the_balanced_grid_trains_as_many_numbers_as_lora(shape):
    rows, columns = shape
    n, m = balanced_grid(rows, columns)
    assert columns % n == 0
    assert rows % m == 0
    assert n * m + rows * columns // (n * m) == rows + columns


def test_divisors_of_squares_and_primes():
    assert divisors(36) == [1, 2, 3, 4, 6, 9, 12, 18, 36]
    assert divisors(7) == [1, 7]
    assert divisors(1) == [1]


def test_the_nearest_grids_divide_and_the_first_is_the_closest():
    assert nearest_grids((64, 64), 576, 576)[0] == (64, 64)
    assert nearest_grids((5, 8), 48, 32, count=2) == [(4, 8), (8, 8)]
    assert all(48 % m == 0 and 32 % n == 0 for n, m in nearest_grids((5, 7), 48, 32))


@pytest.mark.parametrize(("grid", "nearest"), [((5, 8), (4, 8)), ((8, 5), (8, 6))])
def test_a_grid_that_does_not_divide_names_the_layer_its_shape_and_the_nearest(grid, nearest):
    says = (
        rf"in_divs={grid[0]}, out_divs={grid[1]} does not divide the layer layers\.0\.up_proj, whose weight has 48 "
        rf"rows and 32 columns.*The nearest that fit: in_divs={nearest[0]}, out_divs={nearest[1]} or "
    )
    with pytest.raises(ValueError, match=says):
        check_grid(grid, "layers.0.up_proj", out_features=48, in_features=32)


@pytest.mark.parametrize("targets", [["q_proj", "k_proj"], "all-linear"])
def test_a_model_with_a_layer_that_the_grid_does_not_divide_is_left_as_it_was(targets):
    model = tiny("llama")
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(
        ValueError, match=r"model\.layers\.0\.self_attn\.k_proj, whose weight has 16 rows and 32 columns"
    ):
        bola(model, target_modules=targets, in_divs=8, out_divs=32)
    assert [name for name, _ in model.named_modules()] == names


def test_the_default_grid_gives_loras_count_layer_by_layer():
    ours, lora = bola(tiny("llama"), k=3), tiny("llama")
    lora = get_peft_model(lora, LoraConfig(r=3, target_modules=["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]))
    assert sum(p.numel() for p in trainable(ours)) == sum(p.numel() for p in trainable(lora))


@pytest.mark.parametrize(
    ("rows", "columns", "k", "n", "m", "count"),
    [
        (768, 768, 8, 24, 32, 12_288),  # RoBERTa-base, one query: methods.md 1.6
        (4096, 4096, 32, 64, 64, 262_144),  # Llama-3-8B: q
        (1024, 4096, 32, 64, 64, 163_840),  # k, v
        (14336, 4096, 32, 64, 64, 589_824),  # up
        (12, 20, 3, 5, 4, 3 * (20 + 12)),  # n * m = columns
        (12, 20, 3, 2, 3, 3 * (6 + 40)),  # neither: not LoRA's count
    ],
)
def test_a_layer_trains_k_times_cells_plus_block_size(rows, columns, k, n, m, count):
    net = nn.Sequential(nn.Linear(columns, rows, device="meta"))
    model = bola(net, target_modules=["0"], k=k, in_divs=n, out_divs=m)
    (layer,) = layers(model)
    assert layer.bola_scores["default"].weight.shape == (k, n, m)
    assert layer.bola_values["default"].weight.shape == (k, rows // m, columns // n)
    assert layer.bola_grid["default"] == (n, m)
    assert sum(p.numel() for p in trainable(model)) == count


@pytest.mark.parametrize(
    ("k", "model_class", "config", "count"),
    [
        (
            32,
            LlamaForCausalLM,
            LlamaConfig(
                vocab_size=128256,
                hidden_size=4096,
                intermediate_size=14336,
                num_hidden_layers=32,
                num_key_value_heads=8,
            ),
            56_623_104,  # BoLA, table 2
        ),
        (8, RobertaForSequenceClassification, RobertaConfig(max_position_embeddings=514), 294_912),  # table 1
    ],
    ids=["llama3_8b", "roberta_base"],
)
def test_with_nothing_but_k_the_papers_models_have_the_papers_counts(k, model_class, config, count):
    with torch.device("meta"):
        net = model_class(config)
    model = bola(net, k=k)
    assert sum(p.numel() for p in trainable(model)) == count


def test_more_candidates_than_cells_are_allowed_because_they_may_draw_the_same():
    model = bola(tiny("llama"), k=9, in_divs=2, out_divs=2)
    assert all(1 <= layer.unique_blocks("default") <= 4 for layer in layers(model))


def test_a_config_can_name_grids_only_as_a_pair():
    assert BolaConfig(in_divs=4, out_divs=2).out_divs == 2
