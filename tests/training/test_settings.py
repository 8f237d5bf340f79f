import pytest

from tombola.training import Settings


def test_the_defaults_are_valid_and_frozen() -> None:
    settings = Settings()
    with pytest.raises(AttributeError):
        settings.lr = 1.0  # type: ignore[misc]


def test_an_unknown_field_names_the_class() -> None:
    with pytest.raises(TypeError, match=r"Settings.*learning_rate"):
        Settings(learning_rate=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "optimizer",
            "adam",
            r"training.optimizer must be one of adamw, adamw_8bit, adamw_per_entry, sgd, rmsprop. Got 'adam'",
        ),
        ("mixed_precision", "fp16", r"training.mixed_precision must be one of no, bf16"),
        ("non_finite", "ignore", r"training.non_finite must be one of stop, skip, rewind"),
        ("select", "first", r"training.select must be one of last, best"),
        ("batch_size", 0, r"training.batch_size must be at least 1. Got 0"),
        ("validate_every", 0, r"training.validate_every must be at least 1"),
        ("lr", -1.0, r"training.lr must be a finite number, 0 or more. Got -1.0"),
        ("max_grad_norm", float("nan"), r"training.max_grad_norm must be a finite number"),
        ("epochs", 0, r"training.epochs must be a finite number above 0. Got 0"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**{field: value})  # type: ignore[arg-type]
