import pytest

from tombola_cli.config.compose import compose
from tombola_cli.config.layers import layer_faults


def faults(*words):
    return layer_faults(compose(list(words)))


def test_defaults_fit_their_layers():
    assert faults("model=llama3_8b") == faults("model=roberta_base") == faults("model=tiny_phi3", "method=lora") == []


def test_a_method_without_an_adapter_adapts_nothing():
    assert faults("method=base") == faults("method=full_finetuning") == []


def test_a_grid_that_does_not_divide_names_the_layers_and_the_nearest_grids():
    (line,) = faults("model=llama3_8b", "method.config.in_divs=48", "recipe=null")
    assert line == (
        "method.config.in_divs=48, out_divs=64: this grid does not divide q_proj (4096 x 4096), k_proj (1024 x 4096), "
        "v_proj (1024 x 4096), up_proj (14336 x 4096), down_proj (4096 x 14336) (out x in); "
        "nearest that divide every adapted layer: in_divs=32 out_divs=64, in_divs=64 out_divs=64"
    )


def test_only_the_adapted_layers_count():
    assert faults("model=llama3_8b", "method.config.out_divs=14336", "method.config.target_modules=[up_proj]") == []
    (line,) = faults("model=llama3_8b", "method.config.out_divs=4096", "method.config.target_modules=[q_proj,k_proj]")
    assert "does not divide k_proj (1024 x 4096)" in line
    assert "nearest that divide every adapted layer: in_divs=64 out_divs=1024" in line


def test_a_target_that_names_no_layer():
    lines = faults("method.config.target_modules=[query,vlaue,zz]")
    assert lines == [
        "method.config.target_modules: minilm has no linear layer vlaue; did you mean value?",
        "method.config.target_modules: minilm has no linear layer zz; there are dense, key, query, value",
    ]


@pytest.mark.parametrize(
    ("pattern", "end"),
    [
        (
            "query",
            "matches no layer of minilm; one text is a pattern over the whole path, such as bert.encoder.layer.0.",
        ),
        ("'(query'", "not a pattern ("),
    ],
)
def test_one_text_is_a_pattern(pattern, end):
    (line,) = faults(f"method.config.target_modules={pattern}")
    assert end in line


def test_an_unknown_family_is_one_line():
    (line,) = faults("model.architecture.model_type=mamba")
    assert line.startswith("model.architecture.model_type=mamba: unknown layer names")
