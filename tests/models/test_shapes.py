"""The light shapes that config checks use are those of the real modules, for every model file."""

import re
from pathlib import Path

import pytest
from torch import nn

from tombola.models.architecture import empty_net
from tombola_cli.config.shapes import layer_shapes, linear_layers

MODELS = sorted(file.stem for file in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


@pytest.mark.parametrize("name", MODELS)
def test_layer_shapes_are_those_of_the_model_on_the_meta_device(model_of, name):
    model = model_of(name)
    kind, labels = ("generate", 0) if model["role"] == "decoder" else ("classify", 2)
    net = empty_net(model, kind=kind, labels=labels)
    real = {
        path: tuple(module.weight.shape)
        for path, module in net.named_modules()
        if isinstance(module, nn.Linear) and not path.startswith("classifier") and not re.search(r"\.[1-9]\d*\.", path)
    }
    assert linear_layers(model["architecture"], model["role"]) == real
    by_leaf = {}
    for path, shape in real.items():
        by_leaf.setdefault(path.rpartition(".")[2], set()).add(shape)
    light = layer_shapes(model["architecture"], model["role"])
    assert {leaf: {shapes} if isinstance(shapes, tuple) else set(shapes) for leaf, shapes in light.items()} == by_leaf
