from unittest.mock import Mock

from tests.training.tiny import adapted
from torch import nn

from tombola.training.measures import peak_bytes, unique_blocks


def test_distinct_blocks_over_layers_and_active_adapters() -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity())
    for layer, count in zip(model[:2], (3, 8), strict=True):
        layer.active_adapters = ["default"]
        layer.unique_blocks = Mock(return_value=count)
    assert unique_blocks(model) == {"unique_blocks_min": 3, "unique_blocks_mean": 5.5, "unique_blocks_max": 8}
    model[0].unique_blocks.assert_called_once_with("default")


def test_adapters_without_blocks_say_nothing() -> None:
    assert unique_blocks(adapted("lora")) == {}


def test_real_layers_are_asked() -> None:
    assert unique_blocks(adapted("bola"))["unique_blocks_max"] <= 3


def test_peak_bytes_is_a_process_s_size_in_bytes() -> None:
    assert 50 * 2**20 < peak_bytes() < 2**40
