"""Makes a tuner of this package known to PEFT, which has no entry point for tuners from outside.

PEFT dispatches on `PeftType`, an enum without an official way to add a member. So the member is built by hand, as the
enum machinery of Python 3.10 to 3.13 leaves one behind, and the rest is PEFT's own `register_peft_method`. A plain
string in its place breaks where PEFT and transformers read `peft_type.value`.
"""

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method


def register_tuner(name: str, config: type[PeftConfig], model: type[BaseTuner]) -> None:
    """Registers a tuner under a lower-case name, e.g. `bola` for `PeftType.BOLA`; importing a module again renews it.

    Raises ValueError when another package holds the name.
    """
    peft_type = add_peft_type(name.upper())
    holder = PEFT_TYPE_TO_CONFIG_MAPPING.get(peft_type)
    if holder is not None:
        if holder.__module__ != config.__module__:
            raise ValueError(
                f"the PEFT method {name!r} is already registered by {holder.__module__}.{holder.__qualname__}; "
                f"import either that package or tombola, not both"
            )
        for mapping in (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING):
            mapping.pop(peft_type, None)
    register_peft_method(name=name, config_cls=config, model_cls=model)


def add_peft_type(name: str) -> PeftType:
    """The member of that upper-case name, added to the enum when it is not there."""
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    member._sort_order_ = len(PeftType.__members__)  # type: ignore[attr-defined]
    member.__objclass__ = PeftType  # type: ignore[attr-defined]
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    getattr(PeftType, "_hashable_values_", []).append(name)  # 3.13 answers `"BOLA" in PeftType` from this list
    # Since 3.12 attributes are not looked up in `_member_map_`. The metaclass refuses to set members; `type` does not.
    type.__setattr__(PeftType, name, member)
    return member
