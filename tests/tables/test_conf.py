"""The committed tables and recipes compose, agree with the tasks and the papers, and set what they say."""

import pytest
import yaml

from tombola_cli.config.compose import compose
from tombola_cli.records import sources
from tombola_cli.tables import find_table, printed_numbers

TABLES = [
    "bola_table1",
    "bola_table2",
    "bola_table3",
    "minilm_glue",
    "minilm_low_rank",
    "minilm_sparse",
    "minilm_textual_digits",
    "sparse_adapters_table1",
    "sparse_adapters_table2",
]
CAPS = {"max_steps", "max_rows", "max_eval_rows"}
GLUE = ["mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb"]
ENCODER = {"epochs": 30, "batch_size": 64, "weight_decay": 0.1, "mixed_precision": "no", "select": "best"}
DECODER = {"epochs": 3, "batch_size": 128, "weight_decay": 0.0, "mixed_precision": "bf16", "select": "last"}
SHARED = {"optimizer": "adamw", "schedule": "linear", "warmup_ratio": 0.06, "max_length": 512}
QK, QKVUD = ["query", "key"], ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
BOLA_SMALL = {"k": 8, "in_divs": 24, "out_divs": 32, "alpha": 4, "dropout": 0.1, "target_modules": QK}
BOLA_LARGE = {"k": 32, "in_divs": 64, "out_divs": 64, "alpha": 4, "dropout": 0.1, "target_modules": QKVUD}
SPARTA_SMALL = {"count": 12_288, "density": None, "scale": 4, "target_modules": QK}
SPARTA_LARGE = {"count": 353_894, "density": None, "scale": 4, "target_modules": QKVUD}
LORA_SMALL = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": QK}
LORA_LARGE = {"r": 32, "lora_alpha": 64, "lora_dropout": 0.1, "target_modules": QKVUD}
# BoLA, tables 4, 5 and 6: (method, model, task) -> learning rate, training, method.config
PAPER = {
    **{("lora", "roberta_base", f"glue/{task}"): (1e-3, ENCODER, {**LORA_SMALL, "use_dora": False}) for task in GLUE},
    **{("dora", "roberta_base", f"glue/{task}"): (5e-4, ENCODER, {**LORA_SMALL, "use_dora": True}) for task in GLUE},
    **{("bola", "roberta_base", f"glue/{task}"): (1e-3, ENCODER, BOLA_SMALL) for task in GLUE},
    **{("sparta", "roberta_base", f"glue/{task}"): (1e-3, ENCODER, SPARTA_SMALL) for task in GLUE},
    ("lora", "llama3_8b", "math"): (5e-5, DECODER, {**LORA_LARGE, "use_dora": False}),
    ("dora", "llama3_8b", "math"): (5e-5, DECODER, {**LORA_LARGE, "use_dora": True}),
    ("bola", "llama3_8b", "math"): (1e-3, DECODER, BOLA_LARGE),
    ("sparta", "llama3_8b", "math"): (1e-5, DECODER, SPARTA_LARGE),
    ("lora", "llama3_8b", "commonsense"): (1e-4, DECODER, {**LORA_LARGE, "use_dora": False}),
    ("dora", "llama3_8b", "commonsense"): (1e-4, DECODER, {**LORA_LARGE, "use_dora": True}),
    ("bola", "llama3_8b", "commonsense"): (5e-5, DECODER, BOLA_LARGE),
    ("sparta", "llama3_8b", "commonsense"): (1e-5, DECODER, SPARTA_LARGE),
}


@pytest.mark.parametrize("choice", list(PAPER), ids="-".join)
def test_a_recipe_is_picked_up_by_itself_and_is_the_papers(choice):
    rate, training, config = PAPER[choice]
    composed = compose(_words(choice))
    assert composed["training"]["lr"] == rate
    assert {name: composed["training"][name] for name in (*training, *SHARED)} == {**training, **SHARED}
    assert {name: composed["method"]["config"][name] for name in config} == config


# The GLUE files of a method hold one line each, the same.
@pytest.mark.parametrize(
    "choice", [one for one in PAPER if one[2] in ("glue/cola", "math", "commonsense")], ids="-".join
)
def test_a_recipe_sets_existing_fields_and_no_caps(choice):
    with_recipe, without = compose(_words(choice)), compose([*_words(choice), "recipe=null"])
    assert with_recipe["training"].keys() == without["training"].keys()
    assert with_recipe["method"]["config"].keys() == without["method"]["config"].keys()
    assert with_recipe["method"] != without["method"]
    capped, smoke = compose([*_words(choice), "training=smoke"])["training"], compose(["training=smoke"])["training"]
    assert {cap: capped[cap] for cap in CAPS} == {cap: smoke[cap] for cap in CAPS}


@pytest.mark.parametrize("method", ["rigsa", "random_mask"])
def test_rigsas_recipes_are_the_papers(method):
    """RIGSA, section 4.4, for its rounds and for its random mask."""
    composed = compose(_words((method, "smollm2_1b7", "textual_mnist")))
    training, config = composed["training"], composed["method"]["config"]
    expected = {"epochs": 1, "batch_size": 16, "lr": 2e-3, "weight_decay": 1.0, "warmup_steps": 1000}
    assert {name: training[name] for name in expected} == expected
    assert set(config["target_modules"]) == {*QKVUD, "o_proj", "gate_proj"}
    assert (config["gate"], config["gate_init"], config["delta_init"]) == (True, 1e-6, "kaiming")
    assert (config["support"], config["density"]) == {"rigsa": ("full", None), "random_mask": ("random", 0.0346)}[
        method
    ]


def test_every_recipe_of_a_combination_names_existing_choices(repository):
    conf = repository / "conf"
    names = [path.relative_to(conf / "recipe").with_suffix("") for path in (conf / "recipe").rglob("*.yaml")]
    combinations = [name.as_posix().split("-", 2) for name in names if "-" in name.parts[0]]
    of_bolas_paper = {(method, model) for method, model, _ in PAPER}
    assert {tuple(one) for one in combinations if tuple(one[:2]) in of_bolas_paper} == set(PAPER)
    for method, model, task in combinations:
        name = f"{method}-{model}-{task}"
        for group, choice in (("method", method), ("model", model), ("task", task)):
            assert (conf / group / f"{choice}.yaml").exists(), f"{name}: no {group} {choice}"


def test_a_users_value_wins_over_a_recipe():
    assert compose([*_words(("bola", "roberta_base", "glue/cola")), "training.lr=0.5"])["training"]["lr"] == 0.5


def test_the_list_of_tables_is_complete(repository):
    assert sorted(path.stem for path in (repository / "conf" / "table").glob("*.yaml")) == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_a_table_shows_scores_that_its_tasks_measure(name):
    table = find_table(name)
    for row in [row for row in table.rows if row.overrides is not None]:
        tasks = {run: compose([*run, "seed=0"])["task"] for run in table.runs(row)}
        for column in [part for whole in table.columns for part in whole.parts()]:
            task = tasks[table.run(row, column)]
            splits = [*task.get("held_in", ()), *task.get("held_out", ())] or task["rows"]["test"]
            assert column.score.task == task["name"]
            assert column.score.metric in task["metrics"], f"{column.label}: {task['name']} has {task['metrics']}"
            assert column.score.split in splits, f"{column.label}: {splits}"


@pytest.mark.parametrize("name", [name for name in TABLES if name.startswith("bola")])
def test_a_tables_labels_are_the_papers(repository, name):
    table = find_table(name)
    file, number = table.paper
    printed = printed_numbers(repository / "results" / "paper" / file, number)
    columns = [*(column.label for column in table.columns), table.mean]
    shown = {(row.label, column) for row in table.rows for column in columns}
    assert {key for key in printed if key[1] != "params"} == shown


def test_flans_tables_are_over_the_papers_lists():
    task = compose(["task=flan/flan20"])["task"]
    over = {
        name: [column.over for column in find_table(name).columns] for name in TABLES if name.startswith("sparse_ad")
    }
    held_in, held_out = over["sparse_adapters_table1"]
    assert (list(held_in.values), list(held_out.values)) == (task["held_in"], task["held_out"])
    (individual,) = over["sparse_adapters_table2"]
    assert (individual.field, list(individual.values)) == ("task.task_name", task["held_in"])


@pytest.mark.parametrize(("name", "shown"), [("sparse_adapters_table1", {"held-in", "held-out"})])
def test_flans_labels_are_the_papers(repository, name, shown):
    table = find_table(name)
    printed = printed_numbers(repository / "results" / "paper" / table.paper[0], table.paper[1])
    assert {key for key in printed if key[1] in shown} == {(row.label, one) for row in table.rows for one in shown}


def test_the_demos_adapters_have_one_size():
    """BoLA k = LoRA r where in_divs * out_divs is the width (methods: 2kd and r * 2d)."""
    bola, lora = (compose([f"method={name}", "model=minilm", "task=textual_digits"]) for name in ("bola", "lora"))
    config, width = bola["method"]["config"], bola["model"]["architecture"]["hidden_size"]
    assert config["in_divs"] * config["out_divs"] == width
    assert config["k"] == lora["method"]["config"]["r"]
    assert config["target_modules"] == lora["method"]["config"]["target_modules"]


def test_the_tables_of_the_demo_have_every_method_that_has_a_recipe_for_it(repository):
    recipes = {
        path.name.partition("-")[0] for path in (repository / "conf" / "recipe").glob("*-minilm-textual_digits*")
    }
    shown = {compose(row)["method"]["name"] for name in ("minilm_sparse", "minilm_low_rank") for row in _rows(name)}
    assert shown == recipes


def test_the_sparse_table_has_its_methods_at_one_size():
    """Trainable numbers of the adapter, by each method's own setting; full supports are cut to as many later."""
    composed = {one["method"]["name"]: one for one in map(compose, _rows("minilm_sparse"))}
    side, layers = composed["lora"]["model"]["architecture"]["hidden_size"], 18
    for name, one in composed.items():
        method, config = one["method"], one["method"].get("config")
        if config is None:
            continue
        assert config["target_modules"] == ["query", "key", "value"]
        share = method.get("target_density") or method.get("density") or config.get("density") or 0.0
        share = 1 - method["sparsity"] if "sparsity" in method else share
        low_rank = 2 * side * (config.get("r") or config.get("k") or 0)
        numbers = low_rank + round(side**2 * share) + (config.get("count") or 0)
        assert abs(numbers - 6144) <= 1, name
        assert numbers * layers <= 110_592 + layers


def test_the_glue_tables_adapters_have_one_size_and_its_budget():
    """in_divs * out_divs is one side of every layer, so that BoLA k = LoRA r."""
    for one in map(compose, _rows("minilm_glue")):
        method, training, task = one["method"], one["training"], one["task"]
        if method["name"] == "majority":
            continue
        config, side = method["config"], one["model"]["architecture"]["hidden_size"]
        assert (config.get("r") or config.get("k"), config.get("in_divs", 1) * config.get("out_divs", side)) == (
            8,
            side,
        )
        assert config["target_modules"] == one["model"]["linears"]
        assert training["epochs"] <= 3
        assert (training["select"], task["select_on"]) == ("best", "dev")
        assert task["train_rows"] == (8000 if task["name"] == "glue/sst2" else None)


def test_a_tables_checksums_are_those_of_the_published_data(data_folder):
    pinned = {name: find_table(name).data for name in TABLES}
    for words in (row for name in pinned if pinned[name] for row in _rows(name)):
        config = compose(words)
        if config["task"]["data_dir"].startswith(str(data_folder)):
            assert {config["task"]["name"]: sources(config)["data"]}.items() <= pinned["minilm_glue"].items()


def test_notes_tell_of_contamination_and_misprints(repository):
    notes = {
        name: yaml.safe_load((repository / "conf" / "table" / f"{name}.yaml").read_text())["notes"] for name in TABLES
    }
    assert any("85.2" in note and "84.1" in note for note in notes["bola_table3"])
    assert any("Contaminated" in note for note in notes["bola_table2"])


def _rows(name):
    table = find_table(name)
    return [[*run, "seed=0"] for row in table.rows for run in table.runs(row)]


def _words(choice):
    return [f"{group}={name}" for group, name in zip(("method", "model", "task"), choice, strict=True)]
