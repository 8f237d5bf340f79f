"""RoSA's arithmetic in float64 against matrices written out, and its limits: plain LoRA, and a sparse delta alone."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tombola import RosaConfig
from tombola.adapters import RosaLinear, rosa_layers

ENTRIES = [3, 7, 20, 41]  # of a 6 x 8 weight


def net(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6, bias=bias)).double()


def rosa(base: nn.Module, seed: int = 5, **settings: object) -> nn.Module:
    torch.manual_seed(seed)
    return get_peft_model(base, RosaConfig(target_modules=["0"], **{"r": 2, "lora_alpha": 3, "count": 4, **settings}))


def layer_of(model: nn.Module) -> RosaLinear:
    (layer,) = rosa_layers(model).values()
    return layer


def filled(model: nn.Module) -> RosaLinear:
    layer = layer_of(model)
    generator = torch.Generator().manual_seed(2)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def inputs() -> torch.Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def reference(base: nn.Linear, layer: RosaLinear, scale: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The dense delta by its definition, entry by entry, and the leaves that it was made of."""
    leaves = [layer.rosa_a["default"].weight, layer.rosa_b["default"].weight, layer.rosa_values["default"].weight]
    a, b, values = (leaf.detach().clone().requires_grad_() for leaf in leaves)
    sparse = torch.zeros(6, 8, dtype=torch.float64)
    for place, value in zip(layer.rosa_index["default"].tolist(), values, strict=True):
        one = torch.zeros(6, 8, dtype=torch.float64)
        one[place // 8, place % 8] = 1.0
        sparse = sparse + one * value
    return 3 / 2 * (b @ a) + scale * sparse, [a, b, values]


@pytest.mark.parametrize("way", ["borrowed", "added"])
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_the_dense_delta(way, bias):
    base = net(bias)
    plain = base[0]
    model = rosa(base, sparse_scale=0.3)
    layer = filled(model)
    before = plain.weight.detach().clone()
    if way == "added":  # a layer that is listened to must be called
        layer.base_layer.register_forward_hook(lambda *_: None)
    delta, expected_leaves = reference(plain, layer, 0.3)
    torch.testing.assert_close(layer.get_delta_weight("default"), delta, rtol=0, atol=1e-10)
    x, expected_x = inputs(), inputs()
    out = model(x)
    expected = nn.functional.linear(expected_x, plain.weight + delta, plain.bias)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    weights = torch.arange(out.numel(), dtype=torch.float64).view_as(out).cos()
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, expected_x.grad, rtol=0, atol=1e-10)
    found = [layer.rosa_a["default"].weight, layer.rosa_b["default"].weight, layer.rosa_values["default"].weight]
    for leaf, wanted in zip(found, expected_leaves, strict=True):
        torch.testing.assert_close(leaf.grad, wanted.grad, rtol=0, atol=1e-10)
    assert torch.equal(plain.weight, before)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("none", [{"count": 0}, {"count": None, "density": 0.0}])
def test_without_a_sparse_part_it_is_pefts_lora(none, dropout):
    bases = [nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double() for _ in range(2)]
    bases[1].load_state_dict(bases[0].state_dict())
    ours = RosaConfig(target_modules=["0", "2"], r=2, lora_alpha=3, lora_dropout=dropout, **none)
    theirs = LoraConfig(target_modules=["0", "2"], r=2, lora_alpha=3, lora_dropout=dropout)
    models = []
    for base, config in zip(bases, (ours, theirs), strict=True):
        torch.manual_seed(4)
        models.append(get_peft_model(base, config).train())
    optimizers = [torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=0.05) for m in models]
    for step in range(3):
        results = []
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.manual_seed(step)
            out = model(inputs())
            optimizer.zero_grad()
            out.square().sum().backward()
            optimizer.step()
            results.append(out)
        torch.testing.assert_close(*results, rtol=0, atol=1e-10)
    trained = [[p for p in m.parameters() if p.requires_grad] for m in models]
    assert len(trained[0]) == len(trained[1]) == 4
    for one, other in zip(*trained, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_without_a_low_rank_part_only_the_entries_move():
    base = net()
    model = rosa(base, r=0, seed=9)
    layer = layer_of(model)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "base_model.model.0.rosa_values.default.weight"
    ]
    optimizer = torch.optim.AdamW([layer.rosa_values["default"].weight], lr=0.1, weight_decay=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        model(inputs()).square().sum().backward()
        optimizer.step()
    delta = layer.get_delta_weight("default").flatten()
    inside = torch.zeros(48, dtype=torch.bool)
    inside[layer.support("default")] = True
    assert bool((delta[inside] != 0).all())
    assert bool((delta[~inside] == 0).all())


@pytest.mark.parametrize("way", ["borrowed", "added"])
def test_dropout_is_on_the_low_rank_part_alone(way):
    model = rosa(net(), lora_dropout=0.999999)
    layer = filled(model)
    if way == "added":
        layer.base_layer.register_forward_hook(lambda *_: None)
    low_rank = 3 / 2 * (layer.rosa_b["default"].weight @ layer.rosa_a["default"].weight)
    out = model.train()(x := inputs())
    expected = layer.base_layer(x) + nn.functional.linear(x, layer.get_delta_weight("default") - low_rank)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)


def test_entries_are_drawn_from_the_seed_and_the_path_and_are_as_many_as_were_asked_for():
    def entries(**settings: object) -> list[list[int]]:
        base = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 8))
        config = RosaConfig(target_modules=["0", "1", "2"], **settings)
        return [layer.support("default").tolist() for layer in rosa_layers(get_peft_model(base, config)).values()]

    assert entries(count=5) == entries(count=5)
    assert entries(count=5) != entries(count=5, seed=1)
    first, _, last = entries(count=5)
    assert first != last, "layers of one size draw apart"
    assert [len(one) for one in entries(density=0.3)] == [14, 10, 14]
    assert [len(one) for one in entries(count={"0": 2, "1": 0, "2": 48})] == [2, 0, 48]
    assert all(one == sorted(set(one)) for one in entries(density=0.3))


def test_a_support_is_put_with_zeros_and_may_be_emptied():
    layer = filled(model := rosa(net()))
    layer.set_support("default", torch.tensor(ENTRIES))
    assert layer.support("default").tolist() == ENTRIES
    assert layer.rosa_index["default"].dtype == torch.int32
    values = layer.rosa_values["default"].weight
    assert values.requires_grad
    assert torch.equal(values, torch.zeros(4, dtype=torch.float64))
    layer.set_support("default", torch.empty(0, dtype=torch.int64))
    assert not [name for name, _ in model.named_parameters() if "rosa_values" in name]
    assert layer.support("default").numel() == 0
    assert model(inputs()).isfinite().all()
    for wrong in ([1, 1], [2, 1], [-1, 2], [3, 48]):
        with pytest.raises(ValueError, match="ascending, distinct numbers of entries below 48"):
            layer.set_support("default", torch.tensor(wrong))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"count": None}, "give exactly one of them"),
        ({"count": 3, "density": 0.1}, "give exactly one of them"),
        ({"density": 1.5, "count": None}, "density=1.5: it must be at least 0 and at most 1"),
        ({"count": -1}, "count=-1: it must be a whole number of at least 0"),
        ({"r": 1.5}, "r=1.5: it must be a whole number of at least 0"),
        ({"r": 0, "count": 0}, "nothing would be trained"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0: it must be at least 0 and below 1"),
        ({"count": 49}, "count=49 is more than the layer 0, whose weight has 6 rows and 8 columns"),
        ({"count": {"other": 1}}, "count names no number for the layer 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        rosa(net(), **settings)
