import math

import pytest
import torch
import torch.nn.functional as F
from tests.training.tiny import adapted, rows

from tombola.training import Settings, validation_loss


@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_it_is_the_mean_over_all_labelled_tokens_however_cut(budget: int) -> None:
    model, data = adapted().eval(), rows(12)
    total, terms = 0.0, 0
    for row in data:
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        targets = torch.tensor(row["labels"][1:])
        total += F.cross_entropy(logits, targets, reduction="sum", ignore_index=-100).item()
        terms += int((targets != -100).sum())
    found = validation_loss(model, data, Settings(eval_token_budget=budget), pad_token_id=0)
    assert math.isclose(found, total / terms, rel_tol=1e-5)
