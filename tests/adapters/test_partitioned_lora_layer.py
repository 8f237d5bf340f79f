"""Partitioned LoRA in float64 against matrices written out, and its limits: plain LoRA, one group alone."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tombola import PartitionedLoraConfig
from tombola.adapters import PartitionedLoraLinear, partitioned_lora_layers

MASK = [True, False, False, True, True, False]  # of the rows of a 6 x 8 weight
MINOR = {"tied": 3 / 4, "alpha_over_r_minor": 3 / 2}


def net(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6, bias=bias)).double()


def partitioned(base: nn.Module, seed: int = 5, **settings: object) -> nn.Module:
    torch.manual_seed(seed)
    defaults = {"target_modules": ["0"], "r": 4, "r_minor": 2, "lora_alpha": 3, "dominant": {"0": MASK}}
    return get_peft_model(base, PartitionedLoraConfig(**{**defaults, **settings}))


def layer_of(model: nn.Module) -> PartitionedLoraLinear:
    (layer,) = partitioned_lora_layers(model).values()
    return layer


def filled(model: nn.Module) -> PartitionedLoraLinear:
    layer = layer_of(model)
    generator = torch.Generator().manual_seed(2)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def inputs() -> torch.Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def factors(layer: PartitionedLoraLinear) -> list[nn.Parameter]:
    return [parameter for name, parameter in layer.named_parameters() if not name.startswith("base_layer")]


def reference(layer: PartitionedLoraLinear, minor_scale: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The dense delta by its definition, row by row, and the leaves that it was made of."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in factors(layer)]
    a, b, *minor = leaves
    rows, taken = [], {True: 0, False: 0}
    for dominant in MASK:
        place = taken[dominant]
        if dominant:
            rows.append(sum(3 / 4 * b[place, k] * a[k] for k in range(4)))
        elif minor:
            rows.append(sum(minor_scale * minor[1][place, k] * minor[0][k] for k in range(2)))
        else:
            rows.append(torch.zeros(8, dtype=torch.float64))
        taken[dominant] += 1
    return torch.stack(rows), leaves


@pytest.mark.parametrize("r_minor", [0, 2])
@pytest.mark.parametrize("minor_scale", MINOR)
@pytest.mark.parametrize("way", ["joined", "added"])
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_the_dense_delta(bias, way, minor_scale, r_minor):
    base = net(bias)
    plain = base[0]
    model = partitioned(base, minor_scale=minor_scale, r_minor=r_minor)
    layer = filled(model)
    before = plain.weight.detach().clone()
    if way == "added":  # a layer that is listened to must be called
        layer.base_layer.register_forward_hook(lambda *_: None)
    delta, expected_leaves = reference(layer, MINOR[minor_scale])
    torch.testing.assert_close(layer.get_delta_weight("default"), delta, rtol=0, atol=1e-10)
    x, expected_x = inputs(), inputs()
    out = model(x)
    expected = nn.functional.linear(expected_x, plain.weight + delta, plain.bias)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    weights = torch.arange(out.numel(), dtype=torch.float64).view_as(out).cos()
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, expected_x.grad, rtol=0, atol=1e-10)
    for leaf, wanted in zip(factors(layer), expected_leaves, strict=True):
        torch.testing.assert_close(leaf.grad, wanted.grad, rtol=0, atol=1e-10)
    assert torch.equal(plain.weight, before)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("everything", [1.0, {"0": 6, "2": [True] * 4}])
@pytest.mark.parametrize("r_minor", [0, 2])
def test_with_all_rows_dominant_it_is_pefts_lora(r_minor, everything, dropout):
    bases = [nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double() for _ in range(2)]
    bases[1].load_state_dict(bases[0].state_dict())
    shared = {"target_modules": ["0", "2"], "r": 2, "lora_alpha": 3, "lora_dropout": dropout}
    configs = PartitionedLoraConfig(r_minor=r_minor, dominant=everything, **shared), LoraConfig(**shared)
    models = []
    for base, config in zip(bases, configs, strict=True):
        torch.manual_seed(4)
        models.append(get_peft_model(base, config).train())
    ours, theirs = ([p for p in model.parameters() if p.requires_grad] for model in models)
    assert len(ours) == len(theirs) == 4
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    optimizers = [torch.optim.AdamW(trained, lr=0.05, weight_decay=0.1) for trained in (ours, theirs)]
    for step in range(5):
        results = []
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.manual_seed(step)
            out = model(inputs())
            optimizer.zero_grad()
            out.square().sum().backward()
            optimizer.step()
            results.append(out)
        torch.testing.assert_close(*results, rtol=0, atol=1e-10)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_without_a_minor_rank_the_other_rows_never_move():
    model = partitioned(net(), r_minor=0)
    layer = layer_of(model)
    optimizer = torch.optim.AdamW(factors(layer), lr=0.1, weight_decay=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        model(inputs()).square().sum().backward()
        optimizer.step()
    moved = layer.get_delta_weight("default").ne(0).any(1)
    assert moved.tolist() == MASK


def test_each_group_of_rows_has_its_rank_and_the_whole_at_most_their_sum():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(20, 24, bias=False)).double()
    model = partitioned(base, r=3, r_minor=2, dominant=0.5)
    layer = filled(model)
    delta, dominant = layer.get_delta_weight("default"), layer.dominant("default")
    others = torch.tensor([row for row in range(24) if row not in dominant.tolist()])
    assert len(dominant) == len(others) == 12
    assert torch.linalg.matrix_rank(delta[dominant]) == 3
    assert torch.linalg.matrix_rank(delta[others]) == 2
    assert torch.linalg.matrix_rank(delta) == 5


@pytest.mark.parametrize("way", ["joined", "added"])
def test_dropout_is_on_the_adapter_s_input_alone_and_while_it_trains(way):
    model = partitioned(net(), lora_dropout=0.999999)
    layer = filled(model)
    if way == "added":
        layer.base_layer.register_forward_hook(lambda *_: None)
    base = nn.functional.linear(inputs(), layer.base_layer.weight, layer.base_layer.bias)
    torch.testing.assert_close(model.train()(inputs()), base, rtol=0, atol=1e-10)
    whole = base + nn.functional.linear(inputs(), layer.get_delta_weight("default"))
    torch.testing.assert_close(model.eval()(inputs()), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"minor_scale": "alpha_over_r_minor"}, {"r_minor": 0}, {"dominant": 1.0}])
def test_the_plain_lora_of_the_summed_rank_has_the_same_delta(settings):
    layer = filled(partitioned(net(), **settings))
    a, b, alpha = layer.low_rank("default")
    r_minor = settings.get("r_minor", 2)
    assert (a.shape, b.shape) == ((4 + r_minor, 8), (6, 4 + r_minor))
    torch.testing.assert_close(b @ a, layer.get_delta_weight("default").detach(), rtol=0, atol=1e-12)
    assert alpha == len(a)
    assert not a.requires_grad
    assert not b.requires_grad
    config = LoraConfig(target_modules=["0"], r=len(a), lora_alpha=alpha)
    stock = get_peft_model(net(), config)
    stock.base_model.model[0].lora_A["default"].weight.data.copy_(a)
    stock.base_model.model[0].lora_B["default"].weight.data.copy_(b)
    with torch.no_grad():
        expected = nn.functional.linear(inputs(), layer.base_layer.weight + b @ a, layer.base_layer.bias)
        torch.testing.assert_close(stock(inputs()), expected, rtol=0, atol=1e-12)


def test_dominant_rows_are_drawn_from_the_seed_and_the_path_or_are_the_mask_s():
    def rows(**settings: object) -> list[list[int]]:
        base = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 8))
        config = PartitionedLoraConfig(target_modules=["0", "1", "2"], **settings)
        found = partitioned_lora_layers(get_peft_model(base, config)).values()
        assert all(layer.partitioned_lora_rows["default"].dtype == torch.int64 for layer in found)
        return [layer.dominant("default").tolist() for layer in found]

    assert rows() == rows()
    assert rows() != rows(seed=1)
    first, second, _ = rows()
    assert first != second, "layers of one size draw apart"
    assert [len(one) for one in rows(dominant=0.3)] == [2, 2, 2]
    assert [len(one) for one in rows(dominant=0.01)] == [1, 1, 1]
    assert [len(one) for one in rows(dominant={"0": 2, "1": 0.5, "2": 8})] == [2, 3, 8]
    masks = {"0": MASK, "1": torch.tensor(MASK), "2": [False] * 7 + [True]}
    assert rows(dominant=masks) == [[0, 3, 4], [0, 3, 4], [7]]
    assert all(one == sorted(set(one)) for one in rows(dominant=0.9))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"r": 0}, "r=0: it must be a whole number of at least 1"),
        ({"r": 1.5}, "r=1.5: it must be a whole number of at least 1"),
        ({"r_minor": -1}, "r_minor=-1: it must be a whole number of at least 0"),
        ({"r_minor": True}, "r_minor=True: it must be a whole number of at least 0"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0: it must be at least 0 and below 1"),
        ({"minor_scale": "alpha"}, "minor_scale='alpha' is unknown: it must be one of tied, alpha_over_r_minor"),
        ({"dominant": 0.0}, "dominant=0.0: it must be a share above 0.0 and at most 1.0"),
        ({"dominant": 1.5}, "dominant=1.5: it must be a share above 0.0 and at most 1.0"),
        ({"dominant": {"0": 1.5}}, r"dominant\['0'\]=1.5: it must be a share above 0.0"),
        ({"dominant": {"0": [1, 0]}}, r"dominant\['0'\] has numbers of torch.int64: a mask is of bools"),
        ({"dominant": {"0": 7}}, "dominant=7 is more than the layer 0 has: at most 6"),
        ({"dominant": {"0": MASK[:5]}}, "dominant has 5 bools for the layer 0: it needs 6"),
        ({"dominant": {"0": [False] * 6}}, "dominant gives none of the 6 rows of the layer 0: give it at least one"),
        ({"dominant": {"0": 0}}, "dominant gives none of the 6 rows of the layer 0"),
        ({"dominant": {"other": 0.5}}, "dominant names nothing for the layer 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_the_model_is_touched(settings, says):
    base = net()
    with pytest.raises(ValueError, match=says):
        partitioned(base, **settings)
    assert type(base[0]) is nn.Linear


def test_an_adapter_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no adapter 'other' on this layer; it has default"):
        layer_of(partitioned(net())).dominant("other")
