"""A new head goes back to its start with the deltas, in every method that goes back."""

import pytest
import torch

from tombola.adapters import SparseDeltaConfig, sparse_layers
from tombola.methods import Lota, LtSft, Rigsa
from tombola.methods.dense_first import ScaledRate

ZERO = SparseDeltaConfig(target_modules=["query", "value"], support="full")
RANDOM = SparseDeltaConfig(target_modules=["query", "value"], support="full", gate=True, delta_init="kaiming")
# method: for each phase, the phase at whose beginning the head was what it is at this one's
METHODS = {
    "lota": (Lota(ZERO), ["dense", "dense"]),
    "rigsa": (Rigsa(RANDOM, n_prunings=2), ["round-0", "round-0", "round-0"]),
    "lt_sft": (LtSft(ZERO, n_iterations=2), ["dense-0", "dense-0", "dense-1", "dense-1"]),
}


class Shaking:
    """A trainer that moves everything trainable a little, and keeps what each phase found."""

    def __init__(self):
        self.heads = {}

    def train(self, model, *, phase, **_):
        self.heads[phase] = {
            name: value.detach().clone()
            for name, value in model.named_parameters()
            if value.requires_grad and "modules_to_save" in name
        }
        generator = torch.Generator().manual_seed(len(self.heads))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 1e-3 * torch.randn(parameter.shape, generator=generator)

    def note(self, phase, numbers):
        pass


@pytest.mark.parametrize("name", METHODS)
def test_the_head_goes_back_with_the_deltas(host_of, name):
    method, origins = METHODS[name]
    shaking = Shaking()
    model = method.fit(host_of("roberta"), shaking)
    assert sum(layer.support("default").numel() for layer in sparse_layers(model).values()) > 0
    for (phase, head), origin in zip(shaking.heads.items(), origins, strict=True):
        assert head
        assert all(torch.equal(value, shaking.heads[origin][key]) for key, value in head.items()), phase
    first, *others = (shaking.heads[phase] for phase in dict.fromkeys(origins))
    for later in others:
        assert not all(torch.equal(value, first[key]) for key, value in later.items())


def test_a_scaled_rate_scales_what_the_schedule_has_set():
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.5}], lr=0.1)
    ScaledRate(0.25).before_step(torch.nn.Identity(), optimizer, 0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.125]
