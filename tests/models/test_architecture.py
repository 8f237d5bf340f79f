"""The plain values of conf/model give transformers' models, with the published numbers of parameters."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from tombola.models.architecture import empty_net, head_options, net_config
from tombola.models.head import head_modules

# Without a new head; encoders with the pooler that their checkpoints have.
PUBLISHED = {
    "minilm": 22_713_216,
    "smollm2_135m": 134_515_008,
    "smollm2_1b7": 1_711_376_384,
    "roberta_base": 124_645_632,
    "roberta_large": 355_359_744,
    "deberta_v3_base": 183_831_552,
    "llama2_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "llama3_1_8b": 8_030_261_248,
    "qwen2_5_14b": 14_770_033_664,
    "phi3_mini": 3_821_079_552,
    "vit_b16": 86_389_248,
    "clip_vit_b32": 87_456_000,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_a_published_model_has_its_published_size(model_of, name, parameters):
    model = model_of(name)
    config = net_config(model, {})
    with torch.device("meta"):
        if model["role"] == "decoder":
            net = AutoModelForCausalLM.from_config(config)
        else:
            net = AutoModel.from_config(getattr(config, "vision_config", config))
    assert net.num_parameters() == parameters


def test_every_model_file_is_known_here(repository: Path):
    files = {file.stem for file in (repository / "conf" / "model").glob("*.yaml")}
    assert files == {*PUBLISHED, "tiny_llama", "tiny_roberta", "tiny_vit", "tiny_phi3"}


def every_model() -> list[str]:
    return sorted(file.stem for file in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


@pytest.mark.parametrize("name", every_model())
def test_a_model_file_is_complete_and_its_names_are_the_models(model_of, name):
    model = model_of(name)
    assert list(model) == [
        *("name", "source", "repo", "revision", "path", "gated", "role", "dtype", "targets", "linears", "grid"),
        *("weights", "architecture"),
    ]
    net = empty_net(model, kind="generate" if model["role"] == "decoder" else "classify", labels=2)
    assert net.dtype == getattr(torch, model["dtype"])
    linears = {
        path: tuple(module.weight.shape)
        for path, module in net.named_modules()
        if isinstance(module, nn.Linear) and ".0." in path
    }
    named = {path for path in linears if any(path.endswith(f".{name}") for name in model["linears"])}
    assert named == set(linears), "linears must name every linear layer of a block"
    adapted = {path: shape for path, shape in linears.items() if path.endswith(tuple(model["targets"]))}
    assert len(adapted) == len(model["targets"])
    for out_features, in_features in adapted.values():
        assert in_features % model["grid"]["in_divs"] == 0
        assert out_features % model["grid"]["out_divs"] == 0


@pytest.mark.parametrize("name", every_model())
def test_the_head_is_what_the_bare_model_lacks(model_of, name):
    model = model_of(name)
    kind, labels = ("generate", 0) if model["role"] == "decoder" else ("classify", 3)
    net = empty_net(model, kind=kind, labels=labels)
    # Everything outside the bare model, but a decoder's output layer, which is in the checkpoint.
    outside = {name for name, _ in net.named_children()} - {net.base_model_prefix, "dropout", "lm_head", "vision_model"}
    assert outside == set(head_modules(model))


def test_a_task_for_another_role_is_refused(model_of):
    with pytest.raises(ValueError, match=r"tiny_roberta is of role encoder, which answers .* not generate"):
        head_options(model_of("tiny_roberta"), "generate", 0)
    with pytest.raises(ValueError, match="tiny_vit is of role image_encoder, which answers tasks of kind classify"):
        head_options(model_of("tiny_vit"), "regress", 1)


def test_a_head_without_classes_is_refused(model_of):
    for kind, labels in (("classify", 0), ("classify", 1), ("regress", 0)):
        with pytest.raises(ValueError, match=rf"needs the number of classes .* labels={labels}; set task\.labels"):
            head_options(model_of("tiny_roberta"), kind, labels)


def test_an_unknown_model_type_is_refused(model_of):
    model = model_of("tiny_llama", architecture={"model_type": "lama", "hidden_size": 64})
    with pytest.raises(ValueError, match=r"tiny_llama has the architecture.model_type 'lama', which transformers"):
        net_config(model, {})
