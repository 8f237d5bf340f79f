"""When the base weight carries the delta itself, and when the delta's product is added to the base layer's output."""

from collections.abc import Callable

import pytest
import torch
from tests.adapters.tiny_models import bola, layers
from torch import Tensor, nn
from torch.nn import functional as F

from tombola.adapters import BolaLinear, bola_leaves
from tombola.adapters.whole import whole


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kernel each forward took."""
    taken: list[str] = []

    def noting(name: str, kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: object) -> Tensor:
            taken.append(name)
            return kernel(*args)

        return run

    for name in ("bola_additive", "bola_borrowed"):
        monkeypatch.setattr(bola_leaves, name, noting(name.removeprefix("bola_"), getattr(bola_leaves, name)))
    return taken


def layer(base: nn.Module | None = None, **settings: object) -> BolaLinear:
    torch.manual_seed(0)
    net = nn.Sequential(base or nn.Linear(6, 8))
    (adapted,) = layers(bola(net, target_modules=["0"], **settings).train())
    adapted.bola_values["default"].weight.data.normal_()
    return adapted


class Int8Linear(nn.Linear):
    """Stands for a quantised layer: the weight is integers, the product is made of them."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__(columns, rows, bias=False)
        whole_numbers = torch.randint(-9, 9, (rows, columns), dtype=torch.int8)
        self.weight = nn.Parameter(whole_numbers, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) / 8)


def test_training_borrows_and_inference_adds(ways):
    adapted = layer()
    x = torch.randn(3, 6)
    training = adapted(x)
    adapted.eval()
    torch.testing.assert_close(adapted(x), training)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), training)
        torch.testing.assert_close(adapted.train()(x), training)  # the first pass of reentrant checkpointing
    assert ways == ["borrowed", "borrowed", "additive", "borrowed"]


def test_the_borrowed_weight_is_given_back_bit_for_bit(ways):
    adapted = layer()
    before = adapted.base_layer.weight.clone()
    x = torch.randn(3, 6, requires_grad=True)
    adapted(x).sum().backward()
    assert ways == ["borrowed"]
    assert torch.equal(adapted.base_layer.weight, before)
    assert adapted.base_layer.weight.grad is None


def mark_partitioned(adapted: BolaLinear) -> None:
    adapted.base_layer.weight.ds_id = 0  # ZeRO-3


def make_trainable(adapted: BolaLinear) -> None:
    adapted.base_layer.weight.requires_grad_()


def hook_the_base(adapted: BolaLinear) -> None:
    adapted.base_layer.register_forward_pre_hook(lambda module, inputs: None)


def replace_the_method(adapted: BolaLinear) -> None:
    adapted.base_layer.forward = adapted.base_layer.forward  # as accelerate's offloading does


def put_a_view(adapted: BolaLinear) -> None:
    flat = adapted.base_layer.weight.data
    del adapted.base_layer.weight
    adapted.base_layer.weight = flat  # as FSDP1 does


@pytest.mark.parametrize(
    "change",
    [mark_partitioned, make_trainable, hook_the_base, replace_the_method, put_a_view],
    ids=lambda f: f.__name__,
)
def test_a_weight_that_is_not_plain_and_alone_is_not_borrowed(ways, change):
    adapted = layer()
    x = torch.randn(3, 6)
    borrowed = adapted(x)
    change(adapted)
    torch.testing.assert_close(adapted(x), borrowed)
    assert ways == ["borrowed", "additive"]


def test_dropout_adds_in_training_and_only_on_the_adapter_s_input(ways):
    adapted = layer(dropout=0.5)
    x = torch.randn(400, 6)
    base = adapted.base_layer(x)
    dropped = adapted(x) - base
    full = F.linear(x, adapted.get_delta_weight("default"))
    assert not torch.allclose(dropped, full)
    adapted.eval()
    torch.testing.assert_close(adapted(x) - base, full, rtol=1e-4, atol=1e-4)
    assert ways == ["additive", "borrowed"]


def test_a_quantised_layer_is_added_to_and_never_merged_into(ways):
    adapted = layer(Int8Linear(6, 8))
    x = torch.randn(3, 6)
    expected = adapted.base_layer(x) + F.linear(x, adapted.get_delta_weight("default"))
    torch.testing.assert_close(adapted(x), expected)
    adapted(x).sum().backward()
    assert adapted.bola_values["default"].weight.grad.abs().max() > 0
    assert set(ways) == {"additive"}
    with pytest.raises(ValueError, match=r"cannot merge into the weight of Int8Linear, which is quantised"):
        adapted.merge()


def test_a_layer_with_a_forward_of_its_own_is_called(ways):
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    adapted = layer(Doubled(6, 8))
    x = torch.randn(3, 6)
    expected = adapted.base_layer(x) + F.linear(x, adapted.get_delta_weight("default"))
    torch.testing.assert_close(adapted(x), expected)
    assert ways == ["additive"]


def test_an_argument_that_the_base_layer_does_not_know_is_still_an_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'scale'"):
        layer()(torch.randn(3, 6), scale=2)


def test_an_integer_layer_does_not_turn_the_adapter_into_integers():
    adapted = layer(Int8Linear(6, 8))
    assert adapted.bola_values["default"].weight.dtype == torch.float32


@pytest.mark.parametrize("engine", ["zero3", "fsdp1", "fsdp2"])
def test_scores_are_copied_where_the_engine_takes_them_away_after_their_forward(engine):
    scores = layer().bola_scores["default"]
    assert scores() is scores.weight
    if engine == "zero3":
        scores.weight.ds_id = 0
    elif engine == "fsdp1":
        flat = scores.weight.detach().clone().requires_grad_()
        del scores.weight
        scores.weight = flat.view_as(flat)
    else:
        scores.__class__ = type("FSDPBolaScores", (type(scores),), {})
    copied = scores()
    assert copied is not scores.weight
    assert copied.data_ptr() != scores.weight.data_ptr()
    assert torch.equal(copied, scores.weight)
    assert copied.requires_grad


def test_a_shard_is_not_read_as_if_it_were_the_whole():
    adapted = layer()
    adapted.bola_scores["default"].weight.data = adapted.bola_scores["default"].weight.data.flatten()
    with pytest.raises(ValueError, match=r"is not whole on this process: wrap the call in FullyShardedDataParallel"):
        adapted.unique_blocks("default")


def test_freed_memory_is_not_read():
    adapted = layer()
    adapted.bola_scores["default"].weight.data.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"is not whole on this process"):
        adapted.selected_blocks("default")


def test_a_distributed_tensor_is_gathered():
    class Distributed(Tensor):
        def full_tensor(self) -> Tensor:
            return torch.ones(2, 3)

    with whole(torch.zeros(1, 3).as_subclass(Distributed), dims=2) as (gathered,):
        assert torch.equal(gathered, torch.ones(2, 3))
