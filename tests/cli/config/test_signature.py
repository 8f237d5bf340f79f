import dataclasses

import peft
import pytest

from tombola_cli.config.signature import accepts, constructor_fields, named_values


@pytest.mark.parametrize("name", ["LoraConfig", "ShiraConfig", "AdaLoraConfig"])
def test_the_fields_are_the_constructors(name):
    fields = constructor_fields(f"peft.{name}")
    real = {field.name for field in dataclasses.fields(getattr(peft, name)) if field.init}
    assert fields is not None
    assert real <= set(fields)


def test_our_own_classes_are_found_through_their_rooms():
    assert {"target_modules", "k", "in_divs", "out_divs", "alpha"} <= set(
        constructor_fields("tombola.BolaConfig") or {}
    )
    assert "config" in (constructor_fields("tombola.methods.Adapter") or {})
    assert "role" in (constructor_fields("tombola.tasks.TextualDigits") or {})


@pytest.mark.parametrize("target", ["os.system", "peft.NoConfig", "peft.nowhere.LoraConfig", "tombola.nowhere.X"])
def test_a_class_that_is_not_there(target):
    assert constructor_fields(target) is None


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        ("Optional[Union[list[str], str]]", [None, "x", ["x"]], [3]),
        ("int | None", [None, 3], ["x", True, 2.5]),
        ("float", [1, 2.5], ["x", True]),
        ("bool", [True], [1]),
        ("Literal['a', 'b']", ["a"], ["c"]),
        ("Literal['pissa', 'pissa_niter_[number of iters]']", ["pissa_niter_4"], [4]),
        ("dict", [{}], [[]]),
        ("'Optional[int]'", [None, 3], ["x"]),
        ("EvaConfig", [1, "x", None], []),  # cannot be judged
    ],
)
def test_what_an_annotation_takes(annotation, right, wrong):
    assert [accepts(annotation, value) for value in right] == [True] * len(right)
    assert [accepts(annotation, value) for value in wrong] == [False] * len(wrong)


def test_named_values():
    assert named_values("Optional[Literal['paper', 'clean']]") == ["paper", "clean"]
    assert named_values("Optional[list[str]]") == []
