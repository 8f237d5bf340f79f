import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    ViTForImageClassification,
)

from tombola_cli.config.choices import CONF, choices
from tombola_cli.config.compose import compose
from tombola_cli.config.shapes import layer_shapes, linear_layers, targeted

# Of a network's linear layers, those that are made anew for a task.
HEADS = ("classifier", "classifier.dense", "classifier.out_proj", "score")


def real_layers(model: dict) -> dict[str, tuple[int, int]]:
    """Path -> shape of block 0's linear layers of the network that transformers builds, without its weights."""
    values = dict(model["architecture"])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    config.num_hidden_layers = 1
    if config.model_type == "clip_vision_model":
        build = AutoModel.from_config
    elif model["role"] == "image_encoder":
        build = ViTForImageClassification
    else:
        build = (AutoModelForCausalLM if model["role"] == "decoder" else AutoModelForSequenceClassification).from_config
    with torch.device("meta"):
        net = build(config)
    linears = {path: tuple(m.weight.shape) for path, m in net.named_modules() if isinstance(m, nn.Linear)}
    return {path: shape for path, shape in linears.items() if path not in HEADS}


@pytest.mark.parametrize("name", choices(CONF)["model"])
def test_names_and_shapes_are_those_of_the_network(name):
    model = compose([f"model={name}"])["model"]
    known = linear_layers(model["architecture"], model["role"])
    stem = "vision_model." if model["architecture"]["model_type"] == "clip_vision_model" else ""
    real = real_layers(model)
    assert {path.removeprefix(stem): shape for path, shape in known.items()} == {
        path.removeprefix(stem): shape for path, shape in real.items()
    }


def test_a_leaf_name_with_several_shapes_lists_them():
    model = compose(["model=roberta_base"])["model"]
    shapes = layer_shapes(model["architecture"], "encoder")
    assert shapes["query"] == (768, 768)
    assert shapes["dense"] == [(768, 768), (3072, 768), (768, 3072)]


def test_grouped_queries_have_fewer_keys():
    shapes = layer_shapes(compose(["model=llama3_8b"])["model"]["architecture"], "decoder")
    assert (shapes["q_proj"], shapes["k_proj"], shapes["down_proj"]) == ((4096, 4096), (1024, 4096), (4096, 14336))


def test_an_unknown_family_is_named():
    with pytest.raises(ValueError, match="model_type=mamba: unknown layer names; known are llama"):
        layer_shapes({"model_type": "mamba"}, "decoder")


@pytest.mark.parametrize(
    ("targets", "ends"),
    [
        (["query"], ["attention.self.query"]),
        (["output.dense"], ["attention.output.dense", "output.dense"]),  # as PEFT matches ends of paths
        (["layer.3.attention.self.key"], ["attention.self.key"]),
        (r".*\.1\.attention\.self\.(query|value)", ["attention.self.query", "attention.self.value"]),
        ("query", []),  # a pattern is over the whole path
    ],
)
def test_targets_are_matched_as_peft_does(targets, ends):
    layers = linear_layers(compose(["model=roberta_base"])["model"]["architecture"], "encoder")
    assert [path.removeprefix("roberta.encoder.layer.0.") for path in targeted(targets, layers)] == ends


def test_all_linear_leaves_the_head_out():
    layers = linear_layers(compose(["model=tiny_llama"])["model"]["architecture"], "decoder")
    assert set(layers) - set(targeted("all-linear", layers)) == {"lm_head"}
