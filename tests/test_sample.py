"""Caps and validation rows."""

import pytest

from tombola.sample import divided, spread
from tombola.tasks import DataError, TextualDigits
from tombola.training import Settings


def test_spread_takes_evenly_from_the_whole() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(3), None) == [0, 1, 2]


def test_validation_rows_leave_the_training_set() -> None:
    task = TextualDigits(role="encoder")
    train, validation = divided(task, Settings(validation_rows=37))
    assert (len(train), len(validation)) == (1400, 37)
    assert not {example.prompt for example in validation} & {example.prompt for example in train}


def test_caps_hold_after_the_cut() -> None:
    train, validation = divided(
        TextualDigits(role="encoder"), Settings(validation_rows=37, max_rows=8, max_eval_rows=4)
    )
    assert (len(train), len(validation)) == (8, 4)


def test_the_best_epoch_needs_rows_to_be_chosen_by() -> None:
    with pytest.raises(DataError, match=r"select=best: textual_digits has no validation set .*validation_rows=143"):
        divided(TextualDigits(role="encoder"), Settings(select="best"))


def test_nothing_left_to_train_on() -> None:
    with pytest.raises(DataError, match="validation_rows=1437: textual_digits has only 1437 training rows"):
        divided(TextualDigits(role="encoder"), Settings(validation_rows=1437))
