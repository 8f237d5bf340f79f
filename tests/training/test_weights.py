import pytest
import torch
from peft.tuners._buffer_dict import BufferDict
from tests.training.tiny import adapted, tiny_llama
from torch import nn

from tombola.training.weights import check_fit, copy_into, trained_buffers, trained_tensors


def test_adapters_persistent_buffers_are_part_of_a_result_and_the_base_s_are_not() -> None:
    model = adapted()
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    layer.tickets = BufferDict({"default": torch.arange(3)}, persistent=True)
    layer.scratch = BufferDict({"default": torch.arange(3)}, persistent=False)
    layer.base_layer.register_buffer("packed", torch.zeros(2))
    model.get_base_model().register_buffer("statistics", torch.zeros(2))
    assert list(trained_buffers(model)) == ["base_model.model.model.layers.0.self_attn.q_proj.tickets.default"]
    assert set(trained_tensors(model)) - set(trained_buffers(model)) == {
        name for name, p in model.named_parameters() if p.requires_grad
    }


def test_a_model_without_adapters_keeps_all_its_persistent_buffers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert set(trained_buffers(model)) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert trained_buffers(tiny_llama()) == {}  # its rotary frequencies are not persistent


def test_copying_is_in_place() -> None:
    target = nn.Parameter(torch.zeros(2))
    copy_into({"a": target}, {"a": torch.ones(2)})
    assert target.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": torch.zeros(3)}, r"here does not fit the model: a has shape \(3,\) there and \(2,\) in the model"),
        ({}, r"a has shape None there and \(2,\)"),
        ({"a": torch.zeros(2), "b": torch.zeros(1)}, r"b has shape \(1,\) there and None in the model"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_fit({"a": torch.zeros(2)}, values, "here")
