"""Every method with a head of one number, trained by squared error on real-valued labels, as STS-B's."""

import math

import pytest
import torch
from tests.contract.conftest import METHODS, WHOLE, configuration, rows_of

from tombola.models import load_host
from tombola.training import AcceleratedTrainer, Settings

BY_RIGHT_ANSWERS = {"partial_lora", "targeted_lora"}  # the command line refuses these


def regression_host(seed=0):
    return load_host(configuration("base", WHOLE, seed)["model"], kind="regress", labels=1, seed=seed)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in BY_RIGHT_ANSWERS])
def test_a_regression_trains_and_is_saved(matrix, method, tmp_path):
    rows = [{**row, "label": row["label"] / 2} for row in rows_of(WHOLE)]
    settings = Settings(lr=5e-3, batch_size=4, max_steps=4)
    trainer = AcceleratedTrainer(settings=settings, rows=rows, run_dir=tmp_path, pad_token_id=0)
    recipe = matrix.method(method, WHOLE)
    model = recipe.fit(regression_host(), trainer)
    losses = [loss for history in trainer.histories.values() for loss in history.losses]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    # A fresh head answers next to 0, so the first loss is about the mean square of the labels, at most 4.5.
    assert 0 < losses[0] < 4.5**2
    recipe.save(model, tmp_path / "saved")
    answers = matrix.logits(model, WHOLE)
    assert answers.shape == (4, 1)
    assert not torch.allclose(answers, matrix.logits(regression_host().net, WHOLE), atol=1e-4)
    loaded = recipe.load(regression_host(seed=3), tmp_path / "saved")
    torch.testing.assert_close(matrix.logits(loaded, WHOLE), answers, rtol=1e-5, atol=1e-5)
