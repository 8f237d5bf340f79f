"""A masked LoRA layer in float64: PEFT's LoRA where all is kept, exact zeros elsewhere, and what is drawn."""

import itertools
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tests.adapters.masked_reference import ELEMENT, ROW_COL, dense, gradients, picked
from tests.adapters.test_bola_borrowing import (
    Int8Linear,
    hook_the_base,
    make_trainable,
    mark_partitioned,
    put_a_view,
    replace_the_method,
)
from tests.adapters.tiny_models import trainable
from torch import Tensor, nn
from torch.nn import functional as F

from tombola import MaskedLoraConfig
from tombola.adapters import MaskedLoraLinear, masked_lora_leaves

CLOSE = {"rtol": 0, "atol": 1e-10}
HOW = {"row_col": ROW_COL, "element": ELEMENT}
HALF = {"kept_rows": 0.5, "kept_cols": 0.4}


def net(*sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))).double()


def masked(base: nn.Module, **settings: object) -> PeftModel:
    torch.manual_seed(5)
    targets = [name for name, module in base.named_modules() if isinstance(module, nn.Linear)]
    return get_peft_model(base, MaskedLoraConfig(**{"target_modules": targets, "r": 3, "lora_alpha": 4, **settings}))


def layers_of(model: nn.Module) -> list[MaskedLoraLinear]:
    return [module for module in model.modules() if isinstance(module, MaskedLoraLinear)]


def leaves(layer: MaskedLoraLinear) -> tuple[Tensor, Tensor]:
    return layer.masked_lora_a["default"].weight, layer.masked_lora_b["default"].weight


def shaken(model: PeftModel, seed: int = 2) -> PeftModel:
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainable(model):
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def inputs() -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def train(model: nn.Module, steps: int = 5) -> list[Tensor]:
    optimizer = torch.optim.AdamW(trainable(model), lr=0.05, weight_decay=0.3)
    outputs = []
    for step in range(steps):
        torch.manual_seed(step)  # for dropout
        outputs.append(model(inputs()))
        optimizer.zero_grad()
        (outputs[-1] - 1).square().sum().backward()
        optimizer.step()
    return outputs


def pair(how: str, **settings: object) -> tuple[PeftModel, PeftModel]:
    """Ours and PEFT's, under one seed."""
    ours = masked(net(8, 6, 4), granularity=how, **settings)
    config = LoraConfig(target_modules=["0", "1"], r=3, lora_alpha=4, lora_dropout=settings.get("lora_dropout", 0.0))
    base = net(8, 6, 4)
    torch.manual_seed(5)
    return ours, get_peft_model(base, config)


@pytest.mark.parametrize("how", HOW)
def test_where_all_is_kept_it_starts_as_pefts_lora_bit_for_bit(how):
    ours, theirs = pair(how)
    found = [leaves(layer) for layer in layers_of(ours)]
    wanted = trainable(theirs)
    assert len(wanted) == 4
    for (a, b), wanted_a, wanted_b in zip(found, wanted[::2], wanted[1::2], strict=True):
        assert torch.equal(a.view(wanted_a.shape), wanted_a)
        assert torch.equal(b.view(wanted_b.shape), wanted_b)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("how", HOW)
def test_where_all_is_kept_it_trains_as_pefts_lora(how, dropout):
    models = pair(how, lora_dropout=dropout)
    for one, other in zip(*(train(model.train()) for model in models), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    for one, other in zip(*(trainable(model) for model in models), strict=True):
        torch.testing.assert_close(one.view(other.shape), other, **CLOSE)


@pytest.mark.parametrize("how", HOW)
def test_a_starts_as_the_kept_part_of_pefts_and_b_as_zero(how):
    ours, theirs = pair(how, **HALF)
    for layer, whole in zip(layers_of(ours), trainable(theirs)[::2], strict=True):
        columns = layer.kept("default")[1].tolist()
        assert torch.equal(layer.masked_lora_a["default"].weight, picked(whole.detach(), columns, HOW[how][0]))
        assert not layer.masked_lora_b["default"].weight.any()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_output_delta_and_gradients_are_those_of_the_dense_delta(how, bias):
    base = nn.Sequential(nn.Linear(8, 6, bias=bias)).double()
    plain, before = base[0], base[0].weight.detach().clone()
    (layer,) = layers_of(model := shaken(masked(base, granularity=how, **HALF)))
    rows, columns = (places.tolist() for places in layer.kept("default"))
    stored_a, stored_b = leaves(layer)
    a = dense(stored_a.detach(), columns, (3, 8), HOW[how][0])
    b = dense(stored_b.detach(), rows, (6, 3), HOW[how][1])
    torch.testing.assert_close(layer.get_delta_weight("default"), 4 / 3 * b @ a, **CLOSE)
    found = layer.low_rank("default")
    assert torch.equal(found.a, a)
    assert torch.equal(found.b, b)
    assert found.alpha == 4
    out = model(x := inputs())
    torch.testing.assert_close(out, F.linear(x, plain.weight + 4 / 3 * b @ a, plain.bias), **CLOSE)
    grad = torch.arange(out.numel(), dtype=torch.float64).view_as(out).cos()
    out.backward(grad)
    for_x, for_a, for_b = gradients(x.detach().view(-1, 8), grad.view(-1, 6), a, b, 4 / 3)
    torch.testing.assert_close(x.grad.view(-1, 8), for_x + grad.view(-1, 6) @ before, **CLOSE)
    torch.testing.assert_close(stored_a.grad, picked(for_a, columns, HOW[how][0]), **CLOSE)
    torch.testing.assert_close(stored_b.grad, picked(for_b, rows, HOW[how][1]), **CLOSE)
    assert torch.equal(plain.weight, before)


def test_rows_and_columns_that_are_not_kept_are_zero_after_training_with_decay():
    model = masked(net(8, 6, 4), **HALF)
    train(model.train())
    for layer in layers_of(model):
        rows, columns = layer.kept("default")
        inside = torch.zeros(layer.out_features, layer.in_features, dtype=torch.bool)
        inside[rows[:, None], columns] = True
        delta = layer.get_delta_weight("default")
        assert bool((delta[inside] != 0).all())
        assert bool((delta[~inside] == 0).all())
        assert 0 < inside.sum() < inside.numel()


def test_entries_that_are_not_kept_are_zero_after_training_with_decay():
    model = masked(net(8, 6, 4), granularity="element", **HALF)
    train(model.train())
    for layer in layers_of(model):
        rows, columns = layer.kept("default")
        factors = layer.low_rank("default")
        assert torch.equal(factors.b.flatten().nonzero().flatten(), rows)
        assert torch.equal(factors.a.flatten().nonzero().flatten(), columns)


def test_trained_numbers_are_r_times_the_kept_rows_and_columns_or_the_kept_entries():
    numbers = {how: sum(p.numel() for p in trainable(masked(net(8, 6, 4), granularity=how, **HALF))) for how in HOW}
    # rows: 3 of 6, 2 of 4; columns: round(3.2) of 8, round(2.4) of 6. Entries: 9, 6; round(9.6), round(7.2).
    assert numbers == {"row_col": 3 * (3 + 3) + 3 * (2 + 2), "element": 9 + 10 + 6 + 7}
    everything = {how: sum(p.numel() for p in trainable(masked(net(8, 6, 4), granularity=how))) for how in HOW}
    assert everything == {"row_col": 3 * (6 + 8) + 3 * (4 + 6), "element": 3 * (6 + 8) + 3 * (4 + 6)}


def test_what_is_kept_is_drawn_from_the_seed_and_the_path():
    def kept(*sizes: int, **settings: object) -> list[tuple[list[int], list[int]]]:
        model = masked(net(*sizes), kept_rows=0.5, kept_cols=0.5, **settings)
        return [tuple(places.tolist() for places in layer.kept("default")) for layer in layers_of(model)]

    assert kept(8, 8, 8) == kept(8, 8, 8, r=1)
    assert kept(8, 8, 8, 8)[:2] == kept(8, 8, 8), "however many layers there are"
    assert kept(8, 8, 8) != kept(8, 8, 8, seed=1)
    first, second = kept(40, 40, 40)
    assert first != second, "layers of one size draw apart"
    assert first[0] != first[1], "rows and columns draw apart"
    assert all(places == sorted(set(places)) for layer in kept(40, 40, 40) for places in layer)
    assert kept(8, 8, 8, granularity="element") == kept(8, 8, 8, granularity="element")


def test_masks_say_what_is_kept():
    rows, columns = [True, False, False, True, True, False], torch.arange(8) % 3 == 1
    (layer,) = layers_of(masked(net(8, 6), kept_rows={"0": rows}, kept_cols={"0": columns}))
    assert [places.tolist() for places in layer.kept("default")] == [[0, 3, 4], [1, 4, 7]]
    assert layer.masked_lora_kept_a["default"].dtype == layer.masked_lora_kept_b["default"].dtype == torch.int32
    of_b = torch.zeros(6, 3, dtype=torch.bool)
    of_b[1, 2] = of_b[5, 0] = True
    (layer,) = layers_of(masked(net(8, 6), granularity="element", kept_rows={"0": of_b}, kept_cols={"0": 4}))
    assert layer.kept("default")[0].tolist() == [5, 15]
    assert len(layer.kept("default")[1]) == 4


@pytest.mark.parametrize("how", HOW)
def test_a_layer_that_keeps_nothing_is_its_base(how):
    base = net(8, 6)
    expected = base(inputs())
    model = masked(base, granularity=how, kept_rows={"0": 0}, kept_cols={"0": 0})
    train(model.train())
    assert torch.equal(model(inputs()), expected)
    assert sum(p.numel() for p in trainable(model)) == 0


def test_dropout_is_on_the_adapters_input_alone():
    (layer,) = layers_of(model := shaken(masked(net(8, 6), lora_dropout=0.999999, **HALF)))
    assert torch.equal(model.train()(inputs()), layer.base_layer(inputs()))
    assert not torch.equal(model.eval()(inputs()), layer.base_layer(inputs()))


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kernel each forward took."""
    taken: list[str] = []

    def noting(name: str) -> Callable[..., Tensor]:
        kernel = getattr(masked_lora_leaves, name)
        return lambda *args: (taken.append(name.removeprefix("masked_")), kernel(*args))[1]

    for name in ("masked_additive", "masked_fused"):
        monkeypatch.setattr(masked_lora_leaves, name, noting(name))
    return taken


@pytest.mark.parametrize(
    "change",
    [mark_partitioned, make_trainable, hook_the_base, replace_the_method, put_a_view],
    ids=lambda f: f.__name__,
)
def test_a_weight_that_is_not_plain_and_alone_is_added_to(ways, change):
    (layer,) = layers_of(shaken(masked(net(8, 6), **HALF)))
    fused = layer(inputs())
    change(layer)
    torch.testing.assert_close(layer(inputs()), fused, **CLOSE)
    assert ways == ["fused", "additive"]


def test_autocast_and_dropout_in_training_are_added_and_inference_is_not(ways):
    (layer,) = layers_of(model := shaken(masked(net(8, 6), lora_dropout=0.5, **HALF)))
    model.train()(inputs())
    model.eval()(inputs())
    with torch.no_grad():
        model(inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.float()(inputs().float())
    assert ways == ["additive", "fused", "fused", "additive"]
    assert layer.masked_lora_dropout["default"].p == 0.5


@pytest.mark.parametrize("how", HOW)
def test_a_merge_changes_the_kept_rows_and_unmerging_restores_the_bits(how):
    kept = {"0": torch.tensor([True, False, False, True, True, False])}
    if how == "element":
        kept = {"0": kept["0"][:, None] & torch.tensor([True, False, True])}
    (layer,) = layers_of(shaken(masked(net(8, 6), granularity=how, kept_rows=kept)))
    layer.base_layer.weight.data[::2] = -0.0
    before, expected = layer.base_layer.weight.clone(), layer(inputs())
    layer.merge(safe_merge=True)
    changed = (layer.base_layer.weight != before).any(1)
    assert changed.tolist() == [True, False, False, True, True, False]
    torch.testing.assert_close(layer(inputs()), expected, **CLOSE)
    layer.unmerge()
    assert torch.equal(layer.base_layer.weight.view(torch.uint8), before.view(torch.uint8))


@pytest.mark.parametrize("how", HOW)
def test_a_quantised_layer_is_called_and_never_merged_into(how):
    config = MaskedLoraConfig(target_modules=["0"], r=3, granularity=how, **HALF)
    model = get_peft_model(nn.Sequential(Int8Linear(16, 8)), config)
    (layer,) = layers_of(shaken(model))
    x = torch.randn(3, 16)
    calls = []
    layer.base_layer.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(layer(x), layer.base_layer(x) + F.linear(x, layer.get_delta_weight("default")))
    layer(x).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in trainable(model))
    assert len(calls) == 3
    with pytest.raises(
        ValueError, match=r"cannot merge into the weight of Int8Linear, which is quantised.*merge there"
    ):
        layer.merge()


@pytest.mark.parametrize("leaf", ["masked_lora_a", "masked_lora_b"])
@pytest.mark.parametrize("how", HOW)
def test_a_shard_is_not_read_as_if_it_were_the_whole(how, leaf):
    (layer,) = layers_of(masked(net(8, 6), granularity=how, **HALF))
    weight = getattr(layer, leaf)["default"].weight
    weight.data = weight.data[:1]
    with pytest.raises(ValueError, match=r"is not whole on this process"):
        layer.get_delta_weight("default")


def test_an_unknown_adapter_is_refused_by_name():
    (layer,) = layers_of(masked(net(8, 6)))
    for ask in (layer.kept, layer.low_rank, layer.get_delta_weight):
        with pytest.raises(ValueError, match=r"no adapter 'other' on this layer; it has default"):
            ask("other")
