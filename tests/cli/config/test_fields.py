import pytest

from tombola_cli.config.compose import compose
from tombola_cli.config.fields import FIELDS, describe, fault


def leaves(node, prefix=""):
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_field_of_our_own_groups_is_listed():
    config = compose([])
    mine = {name: config[name] for name in config if name not in ("method", "model", "task", "forgetting")}
    assert set(leaves(mine)) <= set(FIELDS)


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("training.lr", [1e-9, 3.0, 1], [0, -1.0, float("nan"), float("inf"), "x", None, True]),
        ("training.epochs", [0.5, 3], [0, -1]),
        ("training.batch_size", [1, 64], [0, -1, 2.5, None]),
        ("training.betas", [[0.9, 0.999], [0, 0]], [[0.9], [0.9, 1.0], [0.9, "x"], 0.9]),
        ("training.warmup_ratio", [0, 0.99], [1, -0.1]),
        ("training.max_steps", [None, 1], [0, "x"]),
        ("training.optimizer", ["adamw"], ["adam", None, 1]),
        ("training.mixed_precision", ["no", "bf16"], ["fp16", False]),
        ("training.schedule", ["linear", "constant_with_warmup"], ["liner"]),
        ("training.non_finite", ["stop", "skip", "rewind"], ["ignore"]),
        ("training.select", ["last", "best"], ["first"]),
        ("launch.nproc", [1, 8], [0]),
        ("launch.kind", ["single", "ddp", "zero2", "zero3"], ["fsdp"]),
        ("log.tracker", ["none", "wandb"], ["mlflow"]),
        ("force", [True], [1, "yes"]),
        ("method.config.magnitude", ["literal", "per_candidate", "constant"], ["mean"]),
        ("method.config.dropout", [0.0, 0.5], [1.0, -0.1]),
        ("seed", [0, 2**32 - 1], [-1, 2**32]),
    ],
)
def test_what_is_in_range(path, right, wrong):
    assert [fault(FIELDS[path], value) for value in right] == [None] * len(right)
    assert [fault(FIELDS[path], value) for value in wrong] == [f"expected {describe(FIELDS[path])}"] * len(wrong)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("training.lr", "a number above 0"),
        ("training.max_steps", "a whole number of at least 1, or null"),
        ("training.warmup_ratio", "a number from 0 to below 1"),
        ("training.betas", "a list of 2 numbers from 0 to below 1"),
        ("training.optimizer", "one of adamw, adamw_8bit, adamw_per_entry, sgd, rmsprop"),
        ("seed", "a whole number from 0 to 4.29497e+09"),
        ("force", "true or false"),
    ],
)
def test_a_field_in_words(path, words):
    assert describe(FIELDS[path]) == words
