"""A few of the rows, what is right on them, and what is made once a run."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.tiny import adapted, rows, tiny_llama, trained
from transformers import RobertaConfig, RobertaForSequenceClassification

from tombola.training import AcceleratedTrainer, Settings
from tombola.training.few_shot import few_shot_rows

DATA = rows(20)
CLASSES = [{"input_ids": row["input_ids"], "label": number % 3} for number, row in enumerate(DATA)]


def make(folder: Path, data: list[dict[str, Any]] = DATA, **settings: Any) -> AcceleratedTrainer:
    settings = {"batch_size": 8, "token_budget": 40, "epochs": 1, "seed": 3, **settings}
    return AcceleratedTrainer(settings=Settings(**settings), rows=data, run_dir=folder, pad_token_id=0)


def encoder(labels: int = 3) -> RobertaForSequenceClassification:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(**shape, vocab_size=64, num_labels=labels, pad_token_id=0, initializer_range=0.3)
    return RobertaForSequenceClassification(config)


def test_so_many_rows_of_each_class_or_a_share() -> None:
    few = few_shot_rows(CLASSES, per_class=4, share=0.5, seed=1)
    assert [sum(CLASSES[number]["label"] == label for number in few) for label in range(3)] == [4, 4, 4]
    assert few == sorted(set(few)) == few_shot_rows(CLASSES, per_class=4, share=0.5, seed=1)
    assert few != few_shot_rows(CLASSES, per_class=4, share=0.5, seed=2)
    assert few_shot_rows(CLASSES, per_class=99, share=0.5, seed=1) == list(range(20))
    assert len(few_shot_rows(DATA, per_class=4, share=0.3, seed=1)) == 6
    assert len(few_shot_rows(DATA, per_class=4, share=0.01, seed=1)) == 1


@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_accuracy_is_the_share_of_labelled_tokens_however_cut(tmp_path: Path, budget: int) -> None:
    net, right, terms = tiny_llama().eval(), 0, 0
    data = [{"input_ids": row["input_ids"], "labels": list(row["labels"])} for row in DATA]
    for number, row in enumerate(data):
        guesses = net(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1].argmax(-1)
        for place, guess in enumerate(guesses.tolist(), 1):
            if row["labels"][place] != -100 and (number + place) % 2:
                row["labels"][place] = guess  # an untrained model is never right by itself
            right += row["labels"][place] == guess
            terms += row["labels"][place] != -100
    assert 0 < right < terms
    assert make(tmp_path, data, eval_token_budget=budget).accuracy(net) == right / terms


def test_accuracy_is_the_share_of_rows_without_dropout(tmp_path: Path) -> None:
    net = encoder().eval()
    ids = [torch.tensor([row["input_ids"]]) for row in CLASSES]
    right = sum(int(net(input_ids=one).logits.argmax()) == row["label"] for one, row in zip(ids, CLASSES, strict=True))
    before = torch.get_rng_state()
    assert 0 < right < 20
    assert make(tmp_path, CLASSES).accuracy(net.train()) == right / 20
    assert net.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_single_output_predicts_no_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this model has a single output"):
        make(tmp_path, CLASSES).accuracy(encoder(labels=1))


def test_inside_all_is_of_the_few(tmp_path: Path) -> None:
    trainer = make(tmp_path, CLASSES)
    assert trainer.steps_per_epoch == 3
    few = few_shot_rows(CLASSES, per_class=2, share=1.0, seed=3)
    with trainer.few_shot(per_class=2, share=1.0):
        assert trainer.steps_per_epoch == 1
        assert trainer.accuracy(encoder()) == make(tmp_path, [CLASSES[n] for n in few]).accuracy(encoder())
        assert trainer.train(encoder(), phase="few", epochs=2).steps == 2
        assert trainer.histories["few"].tokens == 2 * sum(len(CLASSES[n]["input_ids"]) for n in few)
    assert trainer.steps_per_epoch == 3


def test_what_is_made_once_is_read_again_after_a_torn_write(tmp_path: Path) -> None:
    made: list[int] = []

    def make_it() -> dict[str, torch.Tensor]:
        made.append(len(made))
        time.sleep(0.02)
        return {"mask": torch.tensor([True, False]), "share": torch.tensor(made[-1] + 0.1, dtype=torch.float64)}

    trainers = make(tmp_path), make(tmp_path)
    first, again = (trainer.once("found", make_it) for trainer in trainers)
    seconds = [trainer.histories["found"].seconds for trainer in trainers]
    assert seconds[0] == seconds[1] > 0.01  # of the making, also after a resume that only reads
    assert made == [0]
    assert first["mask"].tolist() == [True, False]
    assert torch.equal(first["share"], again["share"])
    (tmp_path / "phases" / "found" / "manifest.json").write_text("{")
    assert float(make(tmp_path).once("found", make_it)["share"]) == 1.1


def test_looking_changes_no_training(tmp_path: Path) -> None:
    found = []
    for look in (False, True):
        model, trainer = adapted(dropout=0.1), make(tmp_path / str(look))
        if look:
            trainer.accuracy(model)
        trainer.train(model, phase="train")
        found.append(trained(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_labels_of_rows_for_a_head(tmp_path: Path) -> None:
    assert make(tmp_path, CLASSES).labels == [number % 3 for number in range(20)]
    with pytest.raises(ValueError, match="labels needs rows for a head"):
        _ = make(tmp_path).labels
