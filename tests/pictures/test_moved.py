import pytest
import torch
from peft import LoraConfig, ShiraConfig, get_peft_model

import tombola
from tombola.pictures.moved import LayerMove, overlap, pool, read_moved, summarise, weight_change

CONFIGS = {
    "lora": lambda: LoraConfig(r=2, target_modules=["q_proj", "down_proj"]),
    "dora": lambda: LoraConfig(r=2, target_modules=["q_proj", "down_proj"], use_dora=True),
    "shira": lambda: ShiraConfig(r=1, target_modules=["q_proj", "down_proj"]),
    "bola": lambda: tombola.BolaConfig(k=3, in_divs=4, out_divs=8, target_modules=["q_proj", "down_proj"]),
}


@pytest.mark.parametrize("method", sorted(CONFIGS))
def test_the_change_is_what_merging_adds(llama, scramble, method):
    before = llama().state_dict()
    model = scramble(get_peft_model(llama(), CONFIGS[method]()))
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    changes = {n.removeprefix("base_model.model."): weight_change(m, "default") for n, m in layers.items()}
    merged = model.merge_and_unload().state_dict()
    assert len(changes) == 4
    for name, change in changes.items():
        expected = merged[f"{name}.weight"] - before[f"{name}.weight"]
        assert torch.allclose(change, expected, atol=1e-6), name
        assert expected.abs().max() > 1e-3


def test_pooling_is_the_mean_of_each_cell():
    change = torch.tensor([[1.0, -3.0, 0.0, 0.0], [2.0, 2.0, 0.0, 4.0]])
    assert torch.equal(pool(change, 1, 2), torch.tensor([[2.0, 1.0]]))
    assert pool(change, 64, 64).shape == (2, 4), "no more cells than entries"


def test_bolas_moves_are_its_selected_blocks(llama, scramble):
    model = scramble(get_peft_model(llama(), CONFIGS["bola"]()))
    moved = read_moved(model)
    for name, move in moved.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        block = layer.in_features // 4 * (layer.out_features // 8)
        assert move.cells.shape == (8, 4)
        assert move.unique_blocks == layer.unique_blocks("default") == int((move.cells > 0).sum())
        assert (move.moved_entries, move.entries) == (move.unique_blocks * block, 32 * block)
        assert move.candidates == 3


def test_other_methods_are_pooled_to_the_grid_that_is_asked_for(llama, scramble):
    moved = read_moved(scramble(get_peft_model(llama(), CONFIGS["lora"]())), grid=(4, 5))
    assert {move.cells.shape for move in moved.values()} == {(5, 4)}
    assert all(move.moved_entries == move.entries and move.unique_blocks is None for move in moved.values())
    assert list(moved)[:2] == ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"]


def test_a_model_without_an_adapter_has_not_moved(llama):
    assert read_moved(llama()) == {}
    assert summarise({}) == {}


def blocks(cells, unique, candidates=2):
    return LayerMove(torch.tensor(cells), unique, 4, unique, candidates)


def test_the_summary_counts_blocks_and_entries():
    summary = summarise({"a": blocks([[1.0, 0.0], [1.0, 0.0]], 2), "b": blocks([[0.0, 0.0], [0.0, 2.0]], 1)})
    assert (summary["moved_share"], summary["unique_blocks"], summary["candidates"]) == (3 / 8, 3, 4)
    assert summary["overlap"] == 0.25, "one of four candidates drew a block that was drawn before"
    assert summary["layers"]["b"] == {"moved_share": 0.25, "unique_blocks": 1, "candidates": 2, "overlap": 0.5}


def test_the_summary_of_a_dense_method_has_no_blocks():
    summary = summarise({"a": LayerMove(torch.ones(2, 2), 8, 16)})
    assert summary == {"moved_share": 0.5, "layers": {"a": {"moved_share": 0.5}}}


def test_overlap_of_two_runs_is_the_share_of_cells_that_both_moved():
    own = {"a": blocks([[1.0, 0.0], [1.0, 0.0]], 2), "b": blocks([[0.0, 0.0], [0.0, 2.0]], 1), "c": blocks([[1.0]], 1)}
    other = {"a": blocks([[1.0, 1.0], [0.0, 0.0]], 2), "b": blocks([[0.0, 0.0], [0.0, 1.0]], 1)}
    assert overlap(own, other) == {"a": 0.5, "b": 1.0}


def test_maps_of_different_grids_are_not_compared():
    assert overlap({"a": blocks([[1.0]], 1)}, {"a": blocks([[1.0, 1.0]], 1)}) == {}
