import pytest

from tombola_cli.config.check import check
from tombola_cli.config.compose import compose, examine


def faults(*words):
    return check(compose(list(words)))


def test_the_default_run_is_fine():
    assert faults() == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["training.lr=0"], "training.lr=0.0: expected a number above 0"),
        (
            ["training.optimizer=adam"],
            "training.optimizer=adam: expected one of adamw, adamw_8bit, adamw_per_entry, sgd, rmsprop",
        ),
        (
            ["method.config.magnitude=mean"],
            "method.config.magnitude=mean: expected one of literal, per_candidate, constant",
        ),
        (
            ["task=vision/cars"],
            "task=vision/cars with model=minilm: the task needs an image_encoder, and this model is an encoder",
        ),
        (["task=math"], "task=math with model=minilm: the task needs a decoder, and this model is an encoder"),
        (
            ["model=tiny_vit"],
            "task=textual_digits with model=tiny_vit: the task needs an encoder or a decoder, and this model is an "
            "image_encoder",
        ),
        (
            ["method=qlora", "launch=zero3", "launch.nproc=2"],
            "method=qlora with launch=zero3: four-bit weights cannot be split; take launch=zero2 or launch=ddp",
        ),
        (
            ["method=partial_lora", "task=glue/stsb"],
            "method=partial_lora with task=glue/stsb: its search counts right answers, and a regression has none; take "
            "a task with classes",
        ),
        (
            ["forgetting=probes"],
            "forgetting=probes with model=minilm: the probes need a decoder, and this model is an encoder",
        ),
        (["launch.nproc=2"], "launch.nproc=2: launch=single is one process; type launch=ddp (or zero2, zero3) for 2"),
        (
            ["launch=ddp", "launch.nproc=3", "training.batch_size=32"],
            "training.batch_size=32: not divisible by launch.nproc=3; nearest is 33",
        ),
        (
            ["model=smollm2_135m", "task=math", "evaluation.generate=vllm"],
            "evaluation.generate=vllm: it decodes greedily, and task.num_beams=4; type task.num_beams=1",
        ),
        (
            ["model=tiny_llama", "evaluation.generate=vllm", "launch=ddp", "launch.nproc=2"],
            "evaluation.generate=vllm with launch.nproc=2: it takes one process; take launch=single",
        ),
        (["evaluation.generate=vlm"], "evaluation.generate=vlm: expected one of transformers, vllm"),
        (["training.max_length=1024"], "training.max_length=1024: minilm has 512 positions; give that or less"),
        (
            ["model=roberta_base", "training.max_length=513"],
            "training.max_length=513: roberta_base has 512 positions; give that or less",
        ),
        (
            ["model=smollm2_135m", "task=textual_mnist"],
            "training.max_length=512: rows of textual_mnist have about 889 tokens; give more than that",
        ),
    ],
)
def test_what_cannot_run_is_one_line(words, line):
    assert faults(*words) == [line]


def test_all_of_it_at_once():
    words = ["task=math", "training.lr=-1", "launch.nproc=5", "method.config.in_divs=7", "training.batch_size=16"]
    found = faults(*words, "method.config.target_modules=[qeury,key]")
    starts = [
        "training.lr=",
        "task=math with",
        "launch.nproc=5",
        "training.batch_size=16",
        "method.config.target_modules",
    ]
    assert [line.startswith(start) for line, start in zip(found, [*starts, "method.config.in_divs=7"], strict=True)]
    assert len(found) == 6


def test_vllm_for_one_beam_and_one_process_is_fine():
    assert faults("model=smollm2_135m", "task=math", "task.num_beams=1", "evaluation.generate=vllm") == []


def test_a_class_that_is_smuggled_in_is_found():
    for word in (
        "method._target_=os.system",
        "method.config._target_=os.system",
        "method.config={_target_: os.system}",
    ):
        config, problems = examine([word])
        assert any(
            "_target_=os.system: this class is not on the allow-list" in line for line in [*problems, *check(config)]
        )


def test_a_value_from_a_recipe_is_judged_as_well():
    config = compose([])
    config["training"]["betas"] = "fast"
    assert check(config) == ["training.betas=fast: expected a list of 2 numbers from 0 to below 1"]


def test_a_new_yaml_that_lacks_a_field_is_told_which():
    config = compose([])
    del config["task"]["roles"], config["model"]["architecture"]
    assert check(config) == [
        "model.architecture: missing; the YAML in conf/model must have it",
        "task.roles: missing; the YAML in conf/task must have it",
    ]


def test_a_recipe_that_sets_what_nothing_reads_is_told():
    config = compose(["method=lora"])
    config["training"]["learning_rate"] = 1e-3
    config["method"]["config"]["rank"] = 8
    config["method"]["seeed"] = 1
    assert check(config) == [
        "training.learning_rate: there is no such field; did you mean training.lr?",
        "method.seeed: tombola.methods.Adapter has no such field; did you mean seed?",
        "method.config.rank: peft.LoraConfig has no such field; did you mean rank_pattern?",
    ]


def test_under_another_launcher_the_number_of_processes_is_its(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    config = compose([])
    config["launch"]["nproc"] = 4
    assert check(config)[0] == "WORLD_SIZE=4: launch=single is one process; type launch=ddp (or zero2, zero3) for 4"
