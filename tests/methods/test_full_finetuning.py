import torch

from tombola.methods import FullFinetuning


def test_every_weight_moves_and_the_checkpoint_is_plain(host_of, trainer_of, batch_of, tmp_path):
    host, trainer, before = host_of("roberta"), trainer_of("roberta"), host_of("roberta").net.state_dict()
    model = FullFinetuning().fit(host, trainer)
    FullFinetuning().save(model, tmp_path)
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    # The key's bias cancels in the softmax, the positions behind the rows are never read: they have no gradient.
    assert {name for name in still if not name.endswith("key.bias")} <= {
        "roberta.embeddings.token_type_embeddings.weight"
    }
    assert set(trainer.trained) == set(before) & {name for name, _ in model.named_parameters()}
    loaded, batch = FullFinetuning().load(host_of("roberta"), tmp_path), batch_of("roberta")
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert not loaded.training


def test_weights_are_trained_in_float32(host_of, trainer_of):
    host = host_of("llama")
    host.net.to(torch.bfloat16)
    model = FullFinetuning().fit(host, trainer_of("llama"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_checkpoint_names_no_path_of_this_machine(host_of, trainer_of, tmp_path):
    FullFinetuning().save(FullFinetuning().fit(host_of("llama"), trainer_of("llama")), tmp_path)
    assert "/somewhere" not in (tmp_path / "config.json").read_text()
