import enum
import importlib
import pickle
import sys

import pytest
from peft import LoraConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType

import tombola
from tombola.adapters import register
from tombola.adapters.register import add_peft_type, register_tuner


@pytest.fixture
def private_enum(monkeypatch: pytest.MonkeyPatch) -> type[enum.Enum]:
    """A stand-in for PeftType, so that members added in a test do not stay."""

    class Stand(str, enum.Enum):
        LORA = "LORA"
        SHIRA = "SHIRA"

    monkeypatch.setattr(register, "PeftType", Stand)
    return Stand


def test_an_added_member_behaves_like_a_declared_one(private_enum):
    member = add_peft_type("SPARSE_DELTA")
    assert private_enum.SPARSE_DELTA is private_enum("SPARSE_DELTA") is private_enum["SPARSE_DELTA"] is member
    assert member == "SPARSE_DELTA"
    assert hash(member) == hash(private_enum["SPARSE_DELTA"])
    assert (member.name, member.value) == ("SPARSE_DELTA", "SPARSE_DELTA")
    assert list(private_enum) == ["LORA", "SHIRA", "SPARSE_DELTA"]
    assert vars(private_enum)["SPARSE_DELTA"] is member  # since 3.12 nothing else finds it
    assert isinstance(member, private_enum)
    assert member in private_enum
    assert "SPARSE_DELTA" in private_enum.__members__


def test_a_declared_member_has_no_attribute_that_an_added_one_lacks(private_enum):
    declared, added = private_enum.SHIRA, add_peft_type("SPARSE_DELTA")
    assert set(vars(declared)) <= set(vars(added))
    assert added._sort_order_ == len(private_enum) - 1
    assert added.__objclass__ is declared.__objclass__


def test_python_3_13_finds_the_value_in_its_list_of_hashable_values(private_enum):
    type.__setattr__(private_enum, "_hashable_values_", ["LORA", "SHIRA"])
    add_peft_type("BOLA")
    assert private_enum._hashable_values_ == ["LORA", "SHIRA", "BOLA"]


def test_adding_a_member_twice_gives_the_first_one(private_enum):
    assert add_peft_type("BOLA") is add_peft_type("BOLA")
    assert list(private_enum) == ["LORA", "SHIRA", "BOLA"]


def test_bola_is_known_to_peft_after_the_import():
    assert PeftType("BOLA") is PeftType.BOLA
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.BOLA] is tombola.BolaConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING["BOLA"] is tombola.BolaModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[PeftType.BOLA] == "bola_"
    assert pickle.loads(pickle.dumps(PeftType.BOLA)) is PeftType.BOLA


def _is_ours(peft_type: str) -> bool:
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft_type].__module__.split(".")[0] == "tombola"


def test_importing_the_package_again_renews_the_registration(monkeypatch: pytest.MonkeyPatch):
    before = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.BOLA]
    loaded = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "tombola"}
    for mapping in (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING):
        for peft_type in [known for known in mapping if _is_ours(known)]:
            monkeypatch.setitem(mapping, peft_type, mapping[peft_type])
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    try:
        again = importlib.import_module("tombola")
        assert again.BolaConfig is not before
        assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.BOLA] is again.BolaConfig
        assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.BOLA] is again.BolaModel
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "tombola"]:
            del sys.modules[name]


def test_a_name_held_by_another_package_is_an_error():
    with pytest.raises(ValueError, match=r"'lora' is already registered by peft\.tuners\.lora.*LoraConfig"):
        register_tuner("lora", tombola.BolaConfig, tombola.BolaModel)
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.LORA] is LoraConfig


def test_the_version_is_the_package_metadata_s(repository):
    assert f'version = "{tombola.__version__}"' in (repository / "pyproject.toml").read_text(encoding="utf-8")
