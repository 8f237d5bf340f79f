import pytest
import torch

from tombola.methods import Base


@pytest.mark.parametrize("family", ["roberta", "vit"])
def test_an_encoders_head_is_trained_alone(host_of, trainer_of, family):
    host, trainer, before = host_of(family), trainer_of(family), host_of(family).net.state_dict()
    model = Base().fit(host, trainer)
    assert trainer.phases == ["train"]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(trainer.trained)
    assert all(name.startswith("classifier.") for name in moved)


def test_a_decoder_is_left_as_it_is(host_of, trainer_of, tmp_path):
    trainer = trainer_of("llama")
    model = Base().fit(host_of("llama"), trainer)
    Base().save(model, tmp_path)
    loaded, before = Base().load(host_of("llama"), tmp_path), host_of("llama").net.state_dict()
    assert trainer.phases == []
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


def test_a_saved_head_is_the_same_head(host_of, trainer_of, batch_of, tmp_path):
    model = Base().fit(host_of("roberta"), trainer_of("roberta"))
    Base().save(model, tmp_path)
    fresh = host_of("roberta")
    torch.nn.init.normal_(fresh.net.classifier.dense.weight)
    loaded, batch = Base().load(fresh, tmp_path), batch_of("roberta")
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert not loaded.training


def test_another_models_head_is_refused(host_of, trainer_of, tmp_path):
    Base().save(Base().fit(host_of("vit"), trainer_of("vit")), tmp_path)
    with pytest.raises(
        ValueError, match=r"head\.safetensors holds classifier\.bias .*head of tiny/roberta is .*load it"
    ):
        Base().load(host_of("roberta"), tmp_path)
    with pytest.raises(ValueError, match=r"the head of tiny/llama is no head"):
        Base().load(host_of("llama"), tmp_path)


def test_the_heads_features_have_no_dropout_while_it_trains(host_of, batch_of):
    host, batch, outputs = host_of("roberta"), batch_of("roberta"), []

    class Looking:
        def train(self, model, *, phase):
            model.train()
            outputs.extend(model(**batch).logits for _ in range(2))

    Base().fit(host, Looking())
    assert torch.equal(*outputs)
    host.net.train()
    assert not torch.equal(host.net(**batch).logits, host.net(**batch).logits)
