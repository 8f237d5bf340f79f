"""lm-eval through us and lm-eval by itself: the same answers, row for row; and a kill in between."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tombola.forgetting import ask_probes, write_task_files
from tombola.forgetting.language_model import KeptAnswers
from tombola.models import load_host
from tombola.tasks import DataError, Probes
from tombola_cli.config.compose import compose

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def by_lm_eval(host: Any, probes: Probes, folder: Path, **options: Any) -> dict[str, Any]:
    """lm-eval's own model class, batches and results, with its command line's seeds."""
    write_task_files(probes, folder)
    model = HFLM(pretrained=host.net, tokenizer=host.processor, batch_size=probes.batch_size)
    seeds = {"random_seed": 0, "numpy_random_seed": 1234, "torch_random_seed": 1234, "fewshot_random_seed": 1234}
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(model, tasks=list(probes.probes), task_manager=tasks, bootstrap_iters=0, **seeds, **options)


def lines(folder: Path, probe: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows" / f"{probe}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("chat", [False, True])
def test_every_row_is_answered_as_by_lm_eval_itself(llama, probes, tmp_path, chat):
    llama.processor.chat_template = CHAT if chat else None
    asked = probes(chat_template=chat)
    ours = ask_probes(llama.net, llama.processor, asked, tmp_path, of="x")
    options = {"apply_chat_template": True, "fewshot_as_multiturn": True} if chat else {}
    theirs = by_lm_eval(llama, asked, tmp_path / "tasks", **options)
    llama.processor.chat_template = None
    for probe in ("piqa", "hellaswag"):
        samples = theirs["samples"][probe]
        assert [row["said"] for row in lines(tmp_path, probe)] == [
            [list(one[0]) for one in s["resps"]] for s in samples
        ]
        assert [row["acc"] for row in lines(tmp_path, probe)] == [sample["acc"] for sample in samples]
        for metric in ("acc", "acc_norm"):
            assert ours[probe]["metrics"][metric] == theirs["results"][probe][f"{metric},none"]
    texts = {sample["doc_id"]: sample["resps"][0][0] for sample in theirs["samples"]["gsm8k"]}
    assert [row["said"][0] for row in lines(tmp_path, "gsm8k")] == [texts[number] for number in range(3)]
    assert any(texts.values())
    for ours_says, theirs_says in (("strict", "strict-match"), ("flexible", "flexible-extract")):
        theirs_score = theirs["results"]["gsm8k"][f"exact_match,{theirs_says}"]
        assert ours["gsm8k"]["metrics"][f"exact_match_{ours_says}"] == theirs_score
    told = {probe: [said[name] for name in ("version", "shots", "n", "cut")] for probe, said in ours.items()}
    assert told == {"piqa": [1.0, 0, 5, 0], "hellaswag": [1.0, 0, 6, 0], "gsm8k": [3.0, 2, 3, 0]}


def test_questions_are_those_of_lm_evals_task_files(probes, llama, tmp_path):
    """The turns of a chat, the tags of WikiHow and the shots are lm-eval's; a row's own words are in the question."""
    samples = by_lm_eval(llama, probes(), tmp_path)["samples"]
    assert samples["piqa"][0]["arguments"][1] == (
        "Question: To dry a wet shoe,\nAnswer:",
        " fill it with water.",
    )
    assert samples["hellaswag"][2]["arguments"][1] == (
        "Cooking 2: A man puts 2. onions into a pan. he",
        " flies away slowly.",
    )
    assert samples["gsm8k"][0]["arguments"][0][0].count("Question: Ada has") == 3


def test_the_first_rows_alone(probes, llama, tmp_path):
    asked = probes(probes=["piqa"], limit={"piqa": 2})
    assert ask_probes(llama.net, llama.processor, asked, tmp_path, of="x")["piqa"]["n"] == 2
    assert [row["row"] for row in lines(tmp_path, "piqa")] == [0, 1]


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("probe", "ask", "batches"), [("hellaswag", "score", 8), ("gsm8k", "generate", 1)])
def test_killed_it_goes_on_at_the_next_batch_with_the_same_bits(
    probes, llama, tmp_path, monkeypatch, probe, ask, batches
):
    asked = probes(probes=[probe], batch_size=3 if probe == "hellaswag" else 2)
    whole = ask_probes(llama.net, llama.processor, asked, tmp_path / "whole", of="x")
    original, calls = getattr(KeptAnswers, ask), []

    def counted(model, requests):
        calls.append(len(requests))
        if len(calls) == stop:
            raise Killed
        return original(model, requests)

    monkeypatch.setattr(KeptAnswers, ask, counted)
    stop = 2
    with pytest.raises(Killed):
        ask_probes(llama.net, llama.processor, asked, tmp_path / "killed", of="x")
    answers = tmp_path / "killed" / "answers" / f"{probe}.jsonl"
    with answers.open("a") as file:
        file.write('{"index": 0, "ans')  # what a kill in the middle of a line leaves
    stop, calls[:] = -1, []
    assert ask_probes(llama.net, llama.processor, asked, tmp_path / "killed", of="x") == whole
    assert len(calls) == batches - 1 if probe == "hellaswag" else len(calls) == 1
    assert (tmp_path / "killed/rows" / f"{probe}.jsonl").read_bytes() == (
        tmp_path / "whole/rows" / f"{probe}.jsonl"
    ).read_bytes()
    calls.clear()
    ask_probes(llama.net, llama.processor, asked, tmp_path / "killed", of="x")
    assert calls == []


def test_answers_of_other_weights_are_not_taken(probes, llama, tmp_path):
    asked = probes(probes=["piqa"])
    ask_probes(llama.net, llama.processor, asked, tmp_path, of="x")
    before = lines(tmp_path, "piqa")
    with torch.no_grad():
        llama.net.lm_head.weight.neg_()
    try:
        ask_probes(llama.net, llama.processor, asked, tmp_path, of="x")
        assert lines(tmp_path, "piqa") == before
        ask_probes(llama.net, llama.processor, asked, tmp_path, of="y")
        assert lines(tmp_path, "piqa") != before
    finally:
        with torch.no_grad():
            llama.net.lm_head.weight.neg_()


def test_prompts_that_the_model_has_no_room_for_are_counted(probes, llama, tmp_path, monkeypatch):
    monkeypatch.setattr(KeptAnswers, "max_length", 60)
    monkeypatch.setattr(KeptAnswers, "max_gen_toks", 10)
    found = ask_probes(llama.net, llama.processor, probes(probes=["piqa", "gsm8k"]), tmp_path, of="x")
    assert found["gsm8k"]["cut"] == 3
    assert 0 < found["piqa"]["cut"] < 10


def test_a_template_that_the_tokenizer_lacks(probes, llama, tmp_path):
    with pytest.raises(DataError, match="chat_template=true, and the model's tokenizer has none; expected false"):
        ask_probes(llama.net, llama.processor, probes(chat_template=True), tmp_path, of="x")


def test_rows_of_the_hub_that_cannot_be_fetched(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"piqa's rows cannot be fetched \(.*\); give a local copy, data_dir=DIR"):
        ask_probes(llama.net, llama.processor, Probes(probes=["piqa"]), tmp_path, of="x")


@pytest.mark.recipe
def test_a_real_model_on_real_rows(data_folder, tmp_path):
    """A few rows; results/forgetting has 1,838 of PIQA, 500 of HellaSwag and 20 of GSM8K."""
    host = load_host(compose(["model=smollm2_135m"])["model"], kind="probe", labels=0, seed=0)
    few = {"piqa": 6, "hellaswag": 3, "gsm8k": 1}
    asked = Probes(data_dir=str(data_folder / "lm_eval"), limit=few, shots={"gsm8k": 5}, batch_size=4)
    ask_probes(host.net, host.processor, asked, tmp_path, of="x")
    one_by_one = {}
    for probe, limit in few.items():
        only = Probes(data_dir=asked.data_dir, probes=[probe], shots=asked.shots, batch_size=4)
        one_by_one |= by_lm_eval(host, only, tmp_path / probe, limit=limit)["samples"]
    for probe, limit in few.items():
        theirs = {sample["doc_id"]: [one[0] for one in sample["resps"]] for sample in one_by_one[probe]}
        said = [row["said"] for row in lines(tmp_path, probe)]
        assert len(said) == limit
        assert said == [[list(one) if isinstance(one, tuple) else one for one in theirs[n]] for n in range(limit)]
