import json
import math
from pathlib import Path

import pytest
from peft import PeftConfig
from peft.utils import PeftType

from tombola import BolaConfig


def test_target_modules_alone_are_enough():
    config = BolaConfig(target_modules=["q_proj"])
    assert config.peft_type is PeftType.BOLA
    assert (config.k, config.in_divs, config.out_divs, config.alpha, config.dropout) == (8, None, None, 4.0, 0.0)
    assert (config.magnitude, config.score_init_a, config.modules_to_save) == ("literal", math.sqrt(5), None)


@pytest.mark.parametrize("magnitude", ["literal", "per_candidate", "constant"])
def test_the_three_magnitudes_are_accepted(magnitude):
    assert BolaConfig(magnitude=magnitude).magnitude == magnitude


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"magnitude": "litteral"}, r"magnitude='litteral' is unknown.*per_candidate.*did you mean 'literal'\?"),
        ({"magnitude": None}, r"magnitude=None is unknown: it must be one of literal, per_candidate, constant"),
        ({"k": 0}, r"k=0: it must be a whole number of at least 1"),
        ({"k": 2.0}, r"k=2.0: it must be a whole number"),
        ({"k": True}, r"k=True: it must be a whole number"),
        ({"in_divs": -1, "out_divs": 2}, r"in_divs=-1: it must be a whole number of at least 1"),
        ({"in_divs": 2, "out_divs": "4"}, r"out_divs='4': it must be a whole number of at least 1"),
        ({"in_divs": 2}, r"in_divs=2, out_divs=None: give both, or neither"),
        ({"dropout": 1.0}, r"dropout=1.0: it must be at least 0 and below 1"),
        ({"dropout": -0.1}, r"dropout=-0.1: it must be at least 0 and below 1"),
        ({"score_init_a": -1.0}, r"score_init_a=-1.0: it must be at least 0"),
        ({"layers_pattern": "layers"}, r"layers_pattern is given without layers_to_transform"),
        (
            {"target_modules": ".*q", "layers_to_transform": [0]},
            r"layers_to_transform needs target_modules to be a list",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(settings, message):
    with pytest.raises(ValueError, match=message):
        BolaConfig(**settings)


def test_the_saved_config_is_read_back_and_has_its_names_in_order(tmp_path: Path):
    names = ["v_proj", "q_proj", "down_proj", "k_proj", "up_proj"]
    saved = BolaConfig(target_modules=names, exclude_modules=["b", "a"], k=3, in_divs=4, out_divs=2, alpha=1.5)
    saved.save_pretrained(str(tmp_path))
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == sorted(names)
    assert written["exclude_modules"] == ["a", "b"]
    assert written["peft_type"] == "BOLA"
    read = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(read, BolaConfig)
    assert read.to_dict() == saved.to_dict()
