import peft
import pytest

from tombola_cli.config.allowed import PEFT, target_faults


def test_every_class_on_the_list_exists():
    assert [name for name in PEFT if not hasattr(peft, name.removeprefix("peft."))] == []


@pytest.mark.parametrize("target", [None, "tombola.BolaConfig", "tombola.methods.Adapter", "peft.LoraConfig"])
def test_what_a_config_may_name(target):
    assert target_faults({"method": {"_target_": target, "config": {"_target_": target}}}) == []


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "tombola.run.os.system",
        "tombola.run.Popen",
        "tombola.tasks.math.Path",
        "tombola.methods.adapter",
        "peft.LoraModel",
        "peft.tuners.lora.LoraConfig",
        "evil.tombola.BolaConfig",
        "tombola.BolaConfig.__init__",
        "tombola.BolaConfig\nos.system",
        ["os.system"],
        3,
    ],
)
def test_nothing_else(target):
    faults = target_faults({"method": {"config": {"_target_": target}}})
    assert len(faults) == 1
    assert faults[0].startswith("method.config._target_=")
    assert "not on the allow-list" in faults[0]


def test_a_misspelt_tuner_is_named():
    assert "did you mean peft.LoraConfig?" in target_faults({"_target_": "peft.LoRAConfig"})[0]


def test_it_cannot_hide_deep_down_or_in_a_list():
    faults = target_faults({"task": {"files": [{"a": {"_target_": "os.system"}}]}})
    assert faults[0].startswith("task.files.0.a._target_=os.system: this class is not on the allow-list")
