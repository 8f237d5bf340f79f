import pytest
import torch
from safetensors.torch import save_file

from tombola.pictures import LayerMove, load_moved, save_moved

MOVED = {
    "layers.2.q": LayerMove(torch.rand(2, 3), 5, 6, 1, 2),
    "layers.10.q": LayerMove(torch.rand(2, 3), 6, 6),  # sorted as text it would come first
}


def test_maps_come_back_in_the_models_order(tmp_path):
    save_moved(MOVED, tmp_path / "run" / "ticket.safetensors", "bola · tiny")
    title, moved = load_moved(tmp_path / "run" / "ticket.safetensors")
    assert title == "bola · tiny"
    assert list(moved) == list(MOVED)
    for name, move in moved.items():
        assert torch.equal(move.cells, MOVED[name].cells)
        assert (move.moved_entries, move.unique_blocks) == (MOVED[name].moved_entries, MOVED[name].unique_blocks)


def test_saved_twice_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_moved(MOVED, tmp_path / name, "t")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_file_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds no pooled maps; expected a ticket"):
        load_moved(tmp_path / "x.safetensors")
