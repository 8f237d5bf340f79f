"""LoRA-Dash's arithmetic in float64 against matrices written out, and its beginning as plain LoRA."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from tombola import LoraDashConfig
from tombola.adapters import LoraDashLinear, choose_directions


def net(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6, bias=bias)).double().requires_grad_(False)


def dash(base: nn.Module, seed: int = 5, **settings: object) -> PeftModel:
    torch.manual_seed(seed)
    fields = {"target_modules": ["0"], "r": 2, "lora_alpha": 3, "directions": 4, **settings}
    return get_peft_model(base, LoraDashConfig(**fields))


def layer_of(model: nn.Module) -> LoraDashLinear:
    (layer,) = (module for module in model.modules() if isinstance(module, LoraDashLinear))
    return layer


def filled(model: nn.Module, seed: int = 2) -> LoraDashLinear:
    """Trained values, and the directions that they show."""
    layer = layer_of(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    choose_directions(model)
    return layer


def inputs() -> torch.Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def leaves_of(layer: LoraDashLinear) -> list[torch.Tensor]:
    return [one["default"].weight for one in (layer.lora_dash_a, layer.lora_dash_b, layer.lora_dash_c)]


def reference(weight: torch.Tensor, layer: LoraDashLinear) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The dense delta by its definition, direction by direction, and the leaves that it was made of."""
    a, b, c = (leaf.detach().clone().requires_grad_() for leaf in leaves_of(layer))
    delta = 3 / 2 * (b @ a)
    u, sigma, vh = torch.linalg.svd(weight, full_matrices=False)
    rates = [abs(float(u[:, i] @ delta.detach() @ vh[i])) / float(sigma[i]) for i in range(6)]
    for number, i in enumerate(sorted(sorted(range(6), key=lambda i: -rates[i])[:4])):
        delta = delta + c[number] * torch.outer(u[:, i], vh[i])
    return delta, [a, b, c]


@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_the_dense_delta(bias):
    base = net(bias)
    plain, before = base[0], base[0].weight.clone()
    model = dash(base)
    layer = filled(model)
    delta, expected_leaves = reference(plain.weight, layer)
    torch.testing.assert_close(layer.get_delta_weight("default"), delta, rtol=0, atol=1e-10)
    x, expected_x = inputs(), inputs()
    out = model(x)
    expected = nn.functional.linear(expected_x, plain.weight + delta, plain.bias)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    weights = torch.arange(out.numel(), dtype=torch.float64).view_as(out).cos()
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, expected_x.grad, rtol=0, atol=1e-10)
    for leaf, wanted in zip(leaves_of(layer), expected_leaves, strict=True):
        torch.testing.assert_close(leaf.grad, wanted.grad, rtol=0, atol=1e-10)
    assert torch.equal(plain.weight, before)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_until_directions_are_chosen_it_is_pefts_lora(dropout):
    bases = [nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double() for _ in range(2)]
    bases[1].load_state_dict(bases[0].state_dict())
    fields = {"target_modules": ["0", "2"], "r": 2, "lora_alpha": 3, "lora_dropout": dropout}
    models = []
    for base, config in zip(bases, (LoraDashConfig(**fields, directions=3), LoraConfig(**fields)), strict=True):
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
        assert torch.equal(*results)
    trained = [[p for n, p in m.named_parameters() if p.requires_grad and "dash_c" not in n] for m in models]
    assert len(trained[0]) == len(trained[1]) == 4
    assert all(torch.equal(one, other) for one, other in zip(*trained, strict=True))
    numbers = [p for n, p in models[0].named_parameters() if "dash_c" in n]
    assert [p.tolist() for p in numbers] == [[0.0] * 3] * 2


def test_choosing_changes_no_answer_and_trains_what_is_chosen():
    model = dash(net())
    layer = filled(model)
    with torch.no_grad():
        layer.lora_dash_c["default"].weight.zero_()
        layer.lora_dash_c["default"].u.zero_()
        before = model(inputs())
        choose_directions(model)
        torch.testing.assert_close(model(inputs()), before, rtol=0, atol=0)
    u, v = layer.lora_dash_c["default"].u, layer.lora_dash_c["default"].v
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(u.T @ u, eye, rtol=0, atol=1e-10)
    torch.testing.assert_close(v @ v.T, eye, rtol=0, atol=1e-10)
    frozen = u.clone()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs()).square().sum().backward()
        optimizer.step()
    assert torch.equal(layer.lora_dash_c["default"].u, frozen)
    assert bool((layer.lora_dash_c["default"].weight != 0).all())


def test_it_trains_as_many_numbers_as_lora_and_one_a_direction():
    model = dash(net(), r=2, directions=4)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * (8 + 6) + 4


def test_merging_is_the_forward_and_unmerging_leaves_no_trace():
    base = net()
    model = dash(base)
    layer = filled(model)
    weight, expected = layer.base_layer.weight.clone(), model(inputs())
    model.merge_adapter()
    torch.testing.assert_close(model(inputs()), expected, rtol=0, atol=1e-10)
    assert not torch.equal(layer.base_layer.weight, weight)
    model.unmerge_adapter()
    assert torch.equal(layer.base_layer.weight, weight)
    with model.disable_adapter():
        assert torch.equal(model(inputs()), layer.base_layer(inputs()))
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(inputs()), expected, rtol=0, atol=1e-10)


def test_saved_and_loaded_it_has_its_directions(tmp_path):
    model = dash(net())
    filled(model)
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(net(), str(tmp_path)).double()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    assert torch.equal(loaded(inputs()), model(inputs()))


def test_two_adapters_keep_apart():
    model = dash(net())
    layer = filled(model)
    model.add_adapter("other", LoraDashConfig(target_modules=["0"], r=1, directions=2))
    one = model(inputs())
    model.set_adapter("other")
    assert torch.equal(model(inputs()), layer.base_layer(inputs()))
    model.set_adapter("default")
    assert torch.equal(model(inputs()), one)
    model.delete_adapter("other")
    assert layer.names() == ["default"]


def test_dropout_is_on_the_input_of_both_parts():
    model = dash(net(), lora_dropout=0.999999).train()
    layer = filled(model)
    torch.testing.assert_close(model(x := inputs()), layer.base_layer(x), rtol=0, atol=1e-10)


def test_narrow_weights_leave_directions_and_numbers_wide():
    base = nn.Sequential(nn.Linear(8, 6)).bfloat16()
    model = dash(base)
    layer = layer_of(model)
    torch.nn.init.ones_(layer.lora_dash_b["default"].weight)
    choose_directions(model.to(torch.bfloat16))
    found = layer.lora_dash_c["default"]
    assert {t.dtype for t in (found.u, found.v, found.weight, *leaves_of(layer))} == {torch.float32}
    torch.testing.assert_close(found.u.T @ found.u, torch.eye(4), rtol=0, atol=1e-5)
    assert model(torch.ones(3, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"r": 0}, "r=0: it must be a whole number of at least 1"),
        ({"directions": 0}, "directions=0: it must be a whole number of at least 1"),
        ({"directions": True}, "directions=True: it must be a whole number"),
        ({"lora_alpha": 0}, "lora_alpha=0: it must be above 0"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0: it must be at least 0 and below 1"),
        ({"directions": 7}, "directions=7 is more than the 6 that the layer 0 has, whose weight has 6 rows and 8 col"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    base = net()
    with pytest.raises(ValueError, match=says):
        dash(base, **settings)
    assert type(base[0]) is nn.Linear


def test_an_adapter_that_is_not_there_is_told():
    layer = layer_of(dash(net()))
    for ask in (layer.get_delta_weight, layer.choose_directions):
        with pytest.raises(ValueError, match="no adapter 'other' on this layer; it has default"):
            ask("other")
