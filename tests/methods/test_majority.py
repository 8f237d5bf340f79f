"""The constant answer, of every kind of head."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tombola.methods import AdapterRefused, Majority

ROWS = SimpleNamespace(labels=[2, 0, 2, 1, 2])


@pytest.mark.parametrize("family", ["roberta", "vit"])
def test_whatever_is_asked_the_answer_is_each_classs_share(host_of, batch_of, family):
    model = Majority().fit(host_of(family), ROWS)
    logits = model(**batch_of(family)).logits
    assert torch.equal(logits, torch.tensor([[0.2, 0.2, 0.6]]).expand_as(logits))


def test_a_regression_answers_the_mean(host_of, batch_of):
    host = host_of("roberta")
    host.net.classifier.out_proj = nn.Linear(16, 1)
    host.net.config.problem_type, host.net.num_labels = "regression", 1
    inputs = {"input_ids": batch_of("roberta")["input_ids"]}
    logits = Majority().fit(host, SimpleNamespace(labels=[0.0, 2.5, 5.0, 4.5]))(**inputs).logits
    assert torch.equal(logits, torch.full_like(logits, 3.0))


def test_it_is_saved_and_loaded_as_a_head(host_of, batch_of, tmp_path):
    model = Majority().fit(host_of("roberta"), ROWS)
    Majority().save(model, tmp_path)
    loaded = Majority().load(host_of("roberta"), tmp_path)
    assert torch.equal(loaded(**batch_of("roberta")).logits, model(**batch_of("roberta")).logits)


def test_a_decoder_has_no_head_to_answer_by(host_of):
    with pytest.raises(AdapterRefused, match="method=majority answers by a head, and tiny/llama has none"):
        Majority().fit(host_of("llama"), ROWS)
