import pytest

from tombola_cli.config.overrides import Change, expand, read

KNOWN = {"method": ["bola", "lora"], "task": ["glue/cola", "glue/rte", "math"], "recipe": ["a-b-c"]}


def test_choices_and_changes_are_told_apart():
    request = read(["method=lora", "task=glue/cola", "training.lr=1e-3", "seed=3"], KNOWN)
    assert request.choices == {"method": "lora", "task": "glue/cola"}
    assert request.changes == [Change("training.lr", 1e-3, "1e-3"), Change("seed", 3, "3")]
    assert request.problems == []


def test_a_mapping_is_its_fields():
    request = read(["training={lr: 1e-3, betas: [0.9, 0.98]}"], KNOWN)
    assert [(one.path, one.value) for one in request.changes] == [
        ("training.lr", 1e-3),
        ("training.betas", [0.9, 0.98]),
    ]


@pytest.mark.parametrize("word", ["recipe=null", "~recipe"])
def test_the_recipe_can_be_left_out(word):
    assert read([word], KNOWN).choices == {"recipe": None}


def test_an_unknown_choice_names_the_nearest_and_goes_on_with_it():
    request = read(["method=bol"], KNOWN)
    assert request.problems == ["method=bol: there is no such method; did you mean method=bola? (choices: bola, lora)"]
    assert request.choices == {"method": "bola"}


def test_a_choice_of_another_group_is_sent_there():
    assert read(["method=math"], KNOWN).problems == [
        "method=math: there is no such method; math is a choice of task: type task=math"
    ]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("foo", "foo: this is not an override; write GROUP=CHOICE or FIELD=VALUE"),
        ("=3", "=3: this is not an override"),
        ("training.lr=[1", r"training.lr=[1: this is not an override"),
        ("seed=0,1", "seed=0,1: several values; add -m for one run a value"),
        ("seed=range(0,3)", "several values; add -m"),
        ("~training.lr", "~training.lr: a field cannot be removed; give it another value"),
        ("training.lr@x=3", "training.lr@x=3: a field has no package"),
        ("hydra.run.dir=x", "hydra.run.dir=x: Hydra's own settings are not used here; runs.dir=DIR"),
        ("method=null", "method=null: method takes one of bola, lora"),
        ("~method", "~method: method takes one of bola, lora"),
        ("method@x=bola", "method takes one of bola, lora"),
        ("method=xyz", "method=xyz: there is no such method; choices: bola, lora"),
    ],
)
def test_what_cannot_be_read_is_one_line(word, line):
    problems = read([word], KNOWN).problems
    assert len(problems) == 1
    assert line in problems[0]
    assert "\n" not in problems[0]


def test_a_sweep_is_a_product_with_the_last_word_fastest():
    jobs = expand(["method=lora", "seed=0,1", "training.lr=choice(1e-3,5e-4)"], KNOWN)
    assert jobs == [
        ["method=lora", "seed=0", "training.lr=1e-3"],
        ["method=lora", "seed=0", "training.lr=5e-4"],
        ["method=lora", "seed=1", "training.lr=1e-3"],
        ["method=lora", "seed=1", "training.lr=5e-4"],
    ] or jobs == [[word.replace("1e-3", "0.001").replace("5e-4", "0.0005") for word in job] for job in jobs]
    assert len(jobs) == 4


def test_ranges_and_patterns_of_choices():
    assert expand(["seed=range(0,3)"], KNOWN) == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert expand(["task=glob(glue/*)"], KNOWN) == [["task=glue/cola"], ["task=glue/rte"]]
    assert expand(["task=glob(*,exclude=glue/*)"], KNOWN) == [["task=math"]]


def test_what_cannot_be_swept_stays_and_is_a_problem_of_the_job():
    assert expand(["training.lr=interval(0,1)", "foo"], KNOWN) == [["training.lr=interval(0,1)", "foo"]]
    assert len(read(["training.lr=interval(0,1)", "foo"], KNOWN).problems) == 2
