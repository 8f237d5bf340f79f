"""The contract of every method, on one family whole; `-m recipe` for the other three."""

import json

import pytest
import torch
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from safetensors.torch import load_file


def original_name(name):
    """A weight's name before PEFT wrapped it."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


def adapter_prefix(run):
    """What is in the names of the adapter's own parameters and buffers; None without an adapter."""
    return PEFT_TYPE_TO_PREFIX_MAPPING[run.method.config.peft_type] if run.is_adapter else None


def test_frozen_weights_are_unchanged(matrix, cell):
    """Bit for bit those that training found; for PiSSA and MiLoRA the residual, for others the host's own."""
    run = matrix.run(*cell)
    found = matrix.untrained(*cell)
    trained = {name for model in (found, run.model) for name, p in model.named_parameters() if p.requires_grad}
    before, after = found.state_dict(), run.model.state_dict()
    # A ticket's places may move between phases, and with them what the adapter stores.
    own = adapter_prefix(run)
    frozen = {name for name in before if name not in trained and not (own and own in name)}
    assert frozen == {name for name in after if name not in trained and not (own and own in name)}
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    # A phase may train an adapter of another kind: PiLoRA's first one is LoRA's.
    left = [name for name in trained if name in after]
    moved = [name for name in left if name not in before or not torch.equal(before[name], after[name])]
    assert bool(moved) == bool(trained)
    if not run.is_adapter or run.on_residual:
        return
    hosts = matrix.host(cell[1]).net.state_dict()
    kept = {original_name(name): value for name, value in after.items() if original_name(name) in hosts}
    assert kept.keys() == hosts.keys()
    assert all(torch.equal(value, hosts[name]) for name, value in kept.items())


def test_only_the_adapter_and_the_head_have_gradients(matrix, cell):
    run, host = matrix.run(*cell), matrix.host(cell[1])
    if cell[0] == "full_finetuning":
        assert all(p.requires_grad for p in run.model.parameters())
        return
    model = run.model
    model.zero_grad()
    if any(p.requires_grad for p in model.parameters()):
        model(**matrix.batch(cell[1])).loss.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    prefix = adapter_prefix(run)
    in_head = [f"{head}.modules_to_save" if run.is_adapter else head for head in host.head]
    others = {n for n in with_gradient if not (prefix and prefix in n) and not any(h in n for h in in_head)}
    assert not others
    assert with_gradient == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(any(head in name for name in with_gradient) for head in in_head), "the head is trained too"
    assert not run.is_adapter or any(prefix in name for name in with_gradient)


def test_what_is_loaded_is_what_was_saved(matrix, cell):
    run = matrix.run(*cell)
    loaded = matrix.logits(run.method.load(matrix.host(cell[1], seed=3), run.saved), cell[1])
    tolerance = run.rounding
    torch.testing.assert_close(loaded, matrix.logits(run.model, cell[1]), rtol=tolerance, atol=tolerance)


def test_merging_keeps_the_answers(matrix, cell):
    run = matrix.run(*cell)
    if not run.is_adapter:
        return
    loaded = run.method.load(matrix.host(cell[1]), run.saved)
    expected = matrix.logits(loaded, cell[1])
    loaded.merge_adapter()
    torch.testing.assert_close(matrix.logits(loaded, cell[1]), expected, rtol=1e-5, atol=1e-5)
    if cell == ("shira", "tiny_roberta"):
        return  # PEFT 0.21 takes a head of several layers for one linear layer: only LoRA's merge_and_unload does not
    loaded.unmerge_adapter()
    merged = loaded.merge_and_unload()
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(matrix.logits(merged, cell[1]), expected, rtol=1e-5, atol=1e-5)


def test_without_the_adapter_the_base_answers(matrix, cell):
    """PiSSA's and MiLoRA's base is the residual while they train, and the original once they are saved."""
    run = matrix.run(*cell)
    if not run.is_adapter:
        return
    base = matrix.logits(matrix.host(cell[1]).net, cell[1])
    loaded = run.method.load(matrix.host(cell[1]), run.saved)
    assert not torch.equal(matrix.logits(loaded, cell[1]), base)
    with loaded.disable_adapter():
        assert torch.equal(matrix.logits(loaded, cell[1]), base)
    with run.model.disable_adapter():
        assert torch.equal(matrix.logits(run.model, cell[1]), base) != run.on_residual


def test_the_seed_is_all_that_decides(matrix, cell):
    run = matrix.run(*cell)
    torch.rand(17)
    assert matrix.fit(*cell).hashes() == run.hashes()
    other = matrix.fit(*cell, seed=1).hashes()
    trains = any(p.requires_grad for p in run.model.parameters())
    weights = [name for name in run.hashes() if name.endswith(".safetensors")]
    assert len(weights) == 1
    assert (other[weights[0]] != run.hashes()[weights[0]]) == trains


def test_a_run_killed_in_every_phase_ends_as_an_uninterrupted_one(matrix, cell, stop_after, tmp_path):
    run = matrix.run(*cell)
    if not any(p.requires_grad for p in run.model.parameters()):
        return  # a decoder's base: nothing is trained, nothing can be cut off
    for phase, steps in run.phases.items():
        with pytest.raises(MemoryError, match="killed"):
            matrix.fit(*cell, folder=tmp_path, hook=stop_after(min(3, steps), phase))
        assert not (tmp_path / run.method.saved_in).exists()
        torch.rand(17)
    resumed = matrix.fit(*cell, folder=tmp_path)
    assert resumed.hashes() == run.hashes()
    again = matrix.fit(*cell, folder=tmp_path, hook=stop_after(1))
    assert again.hashes() == run.hashes(), "a finished phase is loaded and not trained again"


def test_only_the_tickets_coordinates_moved(matrix, cell):
    """By the merged weights, outside of what the adapter's file says that its support is."""
    run = matrix.run(*cell)
    if adapter_prefix(run) != "sparse_delta_":
        return
    host = matrix.host(cell[1]).net
    loaded = run.method.load(matrix.host(cell[1]), run.saved)
    loaded.merge_adapter()
    saved = load_file(run.saved / "adapter_model.safetensors")
    counts = json.loads((run.saved / "adapter_config.json").read_text())["count"]
    block = run.method.config.tile
    moved = 0
    for path, count in counts.items():
        before, layer = host.get_submodule(path).weight, loaded.get_base_model().get_submodule(path)
        index = saved[f"base_model.model.{path}.sparse_delta_index"].long()
        assert torch.equal(index, index.unique()), "ascending, and none twice"
        grid = torch.zeros(before.shape[0] // block, before.shape[1] // block, dtype=torch.bool)
        grid.view(-1)[index if len(index) else slice(None if count else 0)] = True
        inside = grid.repeat_interleave(block, 0).repeat_interleave(block, 1)
        assert int(inside.sum()) == count
        changed = layer.get_base_layer().weight != before
        assert not (changed & ~inside).any()
        moved += int(changed.sum())
    assert moved
