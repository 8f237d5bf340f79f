from pathlib import Path

import pytest

from tombola_cli.config.overrides import Change
from tombola_cli.config.values import WrongType, fitted


def fit(path, value, default, annotation=None, text=None):
    return fitted(Change(path, value, str(value) if text is None else text), value, default, annotation)


@pytest.mark.parametrize(
    ("value", "default", "typed"),
    [
        (2, 1.5, 2.0),
        (1e3, 7, 1000),
        (True, False, True),
        ("x", "y", "x"),
        (["a"], ["b", "c"], ["a"]),
        ([1, 2], [0.5], [1.0, 2.0]),
        ({}, {}, {}),
        (3, None, 3),
    ],
)
def test_a_value_takes_the_type_of_its_field(value, default, typed):
    result = fit("method.config.x", value, default)
    assert result == typed
    assert type(result) is type(typed)


def test_text_that_looks_like_a_number_stays_as_typed():
    assert fit("model.revision", 1230000.0, "main", text="123e4") == "123e4"


def test_a_folder_may_start_with_a_variable(monkeypatch):
    monkeypatch.setenv("TOMBOLA_DATA", "/data")
    assert fit("task.data_dir", "$TOMBOLA_DATA/glue", None) == "/data/glue"
    monkeypatch.delenv("TOMBOLA_DATA")
    assert fit("task.data_dir", "$TOMBOLA_DATA/glue", None) == "$TOMBOLA_DATA/glue"


def test_a_folder_may_start_with_a_tilde():
    assert fit("task.data_dir", "~/data", None) == str(Path.home() / "data")


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        (2.5, 1, "expected a whole number"),
        ("two", 1, "expected a whole number"),
        (True, 1, "expected a whole number"),
        ("x", 0.5, "expected a number"),
        (1, True, "expected true or false"),
        (True, "y", "expected text"),
        ("q_proj", ["a", "b"], r"expected a list such as \[a, b\]"),
        ([1, "x"], [0.5], "expected a list such as"),
        (None, 1, "expected a whole number"),
    ],
)
def test_another_type_is_refused(value, default, expected):
    with pytest.raises(WrongType, match=expected):
        fit("method.config.x", value, default)


def test_a_constructors_annotation_widens_what_a_field_takes():
    target_modules = "Optional[Union[list[str], str]]"
    assert fit("method.config.x", "all-linear", ["query"], target_modules) == "all-linear"
    assert fit("method.config.x", None, ["query"], target_modules) is None
    with pytest.raises(WrongType, match="expected a list"):
        fit("method.config.x", 3, ["query"], target_modules)


def test_a_null_default_takes_what_the_constructor_documents():
    assert fit("method.config.x", ["score"], None, "Optional[list[str]]") == ["score"]
    with pytest.raises(WrongType, match=r"expected Optional\[list\[str\]\]"):
        fit("method.config.x", 3, None, "Optional[list[str]]")


def test_named_values_are_the_only_ones():
    assert fit("method.config.bias", "all", "none", "Literal['none', 'all']") == "all"
    with pytest.raises(WrongType, match="expected one of none, all"):
        fit("method.config.bias", "al", "none", "Literal['none', 'all']")


def test_a_listed_field_is_judged_by_its_list():
    assert fit("training.max_grad_norm", None, 1.0) is None  # a recipe set it, and null is still allowed
    assert fit("training.lr", 1, 1e-3) == 1.0
    with pytest.raises(WrongType, match="expected a whole number of at least 1, or null"):
        fit("training.max_steps", "many", None)
