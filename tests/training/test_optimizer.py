import pytest
import torch
from torch import nn

from tombola.training import Settings
from tombola.training.optimizer import build_optimizer, build_schedule


def test_linear_with_warm_up_as_transformers_has_it() -> None:
    factor = build_schedule(Settings(schedule="linear", warmup_ratio=0.2), 10)
    assert [round(factor(step), 6) for step in range(10)] == [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]


def test_warmup_steps_win_over_the_ratio_which_is_rounded_up() -> None:
    assert build_schedule(Settings(warmup_ratio=0.5, warmup_steps=1), 10)(1) == 1.0
    assert build_schedule(Settings(warmup_ratio=0.01), 10)(0) == 0.0


def test_constant_is_constant() -> None:
    factor = build_schedule(Settings(schedule="constant"), 10)
    assert {factor(step) for step in range(10)} == {1}


@pytest.mark.parametrize("name", ["sawtooth", "reduce_lr_on_plateau", "warmup_stable_decay"])
def test_a_schedule_that_needs_more_than_steps_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"training.schedule='{name}' cannot be built .*Try linear, cosine"):
        build_schedule(Settings(schedule=name), 10)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", "AdamW"), ("adamw_per_entry", "AdamWPerEntry"), ("sgd", "SGD"), ("rmsprop", "RMSprop")],
)
def test_the_settings_reach_the_optimizer(name: str, kind: str) -> None:
    settings = Settings(optimizer=name, lr=0.5, betas=[0.8, 0.9], eps=1e-5)
    optimizer = build_optimizer(dict(nn.Linear(2, 2).named_parameters()), settings)
    assert type(optimizer).__name__ == kind
    assert optimizer.defaults["lr"] == 0.5
    assert len(optimizer.param_groups) == 1
    if name.startswith("adamw"):
        assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.8, 0.9), 1e-5)


def test_weight_decay_spares_vectors() -> None:
    layer = nn.Linear(2, 2)
    groups = build_optimizer(dict(layer.named_parameters()), Settings(weight_decay=0.1)).param_groups
    assert [(group["weight_decay"], [p.ndim for p in group["params"]]) for group in groups] == [(0.1, [2]), (0.0, [1])]


def test_weight_decay_is_on_values_and_gates_of_sparse_adapters() -> None:
    names = [
        "sparse_delta_values.default",
        "sparse_delta_gate.default",
        "rosa_values.default",
        "modules_to_save.default",
    ]
    parameters = {f"layer.{name}.weight": nn.Parameter(torch.zeros(1)) for name in names}
    parameters["layer.sparse_delta_values.default.weight"] = nn.Parameter(torch.zeros(5))
    groups = build_optimizer(parameters, Settings(weight_decay=1.0)).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(1.0, 3), (0.0, 1)]


def test_a_group_without_parameters_is_left_out() -> None:
    groups = build_optimizer({"weight": nn.Parameter(torch.zeros(2, 2))}, Settings(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1]


def test_a_new_head_has_its_own_rate_beside_an_adapter() -> None:
    names = [
        "layer.lora_A.weight",
        "classifier.modules_to_save.default.weight",
        "classifier.modules_to_save.default.bias",
    ]
    parameters = {name: nn.Parameter(torch.zeros(2, 2)) for name in names}
    peaks = {
        id(parameter): group["peak_lr"]
        for group in build_optimizer(parameters, Settings(lr=1e-3, head_lr=1e-2)).param_groups
        for parameter in group["params"]
    }
    assert [peaks[id(parameter)] for parameter in parameters.values()] == [1e-3, 1e-2, 1e-2]
    assert {group["peak_lr"] for group in build_optimizer(parameters, Settings(lr=1e-3)).param_groups} == {1e-3}
