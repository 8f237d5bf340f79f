"""Plans: the papers' numbers of trainable parameters, counted offline on the meta device."""

import copy
import importlib
from typing import Any

import pytest
from peft import get_peft_model, get_peft_model_state_dict
from rich.console import Console

from tombola.models import load_host, plan
from tombola.models.planning import micro_batch_tokens, optimizer_steps

MATH = {"name": "math", "kind": "generate", "labels": 0, "rows": {"train": 9919}, "tokens": {"train": 256}}
COLA = {"name": "glue/cola", "kind": "classify", "labels": 2, "rows": {"train": 8551}, "tokens": {"train": 12}}
CARS = {"name": "vision/cars", "kind": "classify", "labels": 196, "rows": {"train": 8144}, "tokens": None}
SINGLE = {"kind": "single", "nproc": 1}


def adapter(target: str, **fields: Any) -> dict[str, Any]:
    config = {"_target_": target, "modules_to_save": None, **fields}
    return {"name": target, "_target_": "tombola.methods.Adapter", "config": config}


def lora(targets: list[str], r: int, **fields: Any) -> dict[str, Any]:
    return adapter("peft.LoraConfig", target_modules=targets, r=r, lora_alpha=16, lora_dropout=0.0, **fields)


def bola(targets: list[str], k: int, in_divs: int, out_divs: int) -> dict[str, Any]:
    return adapter("tombola.BolaConfig", target_modules=targets, k=k, in_divs=in_divs, out_divs=out_divs, alpha=4.0)


def partitioned(targets: list[str], r: int, r_minor: int = 2) -> dict[str, Any]:
    """PiLoRA's second stage; half of the rows are dominant."""
    return adapter("tombola.PartitionedLoraConfig", target_modules=targets, r=r, r_minor=r_minor, lora_alpha=2 * r)


@pytest.fixture
def planned(model_of, training):
    def planned(method, model, task, launch=SINGLE, **changes):
        model = model if isinstance(model, dict) else model_of(model)
        return plan({"method": method, "model": model, "task": task, "training": training | changes, "launch": launch})

    return planned


QK, QKVUD = ["query", "key"], ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
LLAMA_LINEARS = [*QKVUD, "o_proj", "gate_proj"]
CLIP_LINEARS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
ROBERTA_LINEARS = [*QK, "value", "attention.output.dense", "intermediate.dense", "output.dense"]
# methods.md 1.6, 5.4, 6 and 9: what the papers print, or what follows from their settings.
PAPERS = [
    (bola(QKVUD, 32, 64, 64), "llama3_8b", MATH, 56_623_104),
    (lora(QKVUD, 32), "llama3_8b", MATH, 56_623_104),
    (lora(QKVUD, 32, use_dora=True), "llama3_8b", MATH, 57_409_536),
    (adapter("peft.ShiraConfig", target_modules=QKVUD, r=32), "llama3_8b", MATH, 56_623_104),
    (lora(QKVUD, 32, init_lora_weights="pissa"), "llama3_8b", MATH, 56_623_104),
    (bola(QK, 8, 24, 32), "roberta_base", COLA, 294_912),
    (lora(QK, 8, use_dora=True), "roberta_base", COLA, 313_344),
    (lora(ROBERTA_LINEARS, 32), "roberta_large", COLA, 14_155_776),
    (lora(QKVUD, 32), "llama2_7b", MATH, 56_098_816),
    (partitioned(QKVUD, 32, 2), "llama2_7b", MATH, 44_703_744),
    (lora(LLAMA_LINEARS, 16), "smollm2_1b7", MATH, 18_087_936),
    (lora(CLIP_LINEARS, 8), "clip_vit_b32", CARS, 1_327_104),
]


@pytest.mark.parametrize(("method", "model", "task", "trainable"), PAPERS)
def test_trainable_parameters_are_the_papers(planned, method, model, task, trainable):
    assert planned(method, model, task).trainable == trainable


def test_kinds_are_the_targets_with_their_sizes(planned):
    made = planned(bola(QKVUD, 32, 64, 64), "llama3_8b", MATH)
    each = {kind.name: kind for kind in made.kinds}
    assert list(each) == QKVUD
    assert each["q_proj"].trainable == 32 * 32 * (4096 + 4096)
    assert each["k_proj"].trainable == 32 * 32 * (4096 + 1024)
    assert each["up_proj"].base == 32 * 4096 * 14336
    assert {kind.modules for kind in made.kinds} == {32}
    assert made.stored == made.trainable
    assert made.base == made.frozen == 8_030_261_248
    assert made.total == 8_030_261_248 + 56_623_104


def test_the_head_is_counted_apart(planned):
    made = planned(bola(QK, 8, 24, 32), "roberta_base", COLA)
    assert made.head == 768 * 768 + 768 + 768 * 2 + 2
    assert made.trainable == 294_912
    assert made.base == 124_645_632 - 768 * 769  # RoBERTa's class for sequences has no pooler
    assert made.total == made.base + made.trainable + made.head


def test_gates_are_counted_apart(planned, monkeypatch):
    from torch import nn

    from tombola.models import adapted

    def with_gates(net, config, **options):
        model = get_peft_model(net, config, **options)
        for name, module in list(model.named_modules()):
            if name.endswith("gate_proj") and hasattr(module, "base_layer"):
                module.lora_gate = nn.ParameterDict({"default": nn.Parameter(module.lora_A["default"].weight[0, :1])})
        return model

    monkeypatch.setattr(adapted, "get_peft_model", with_gates)
    made = planned(lora(["gate_proj"], 2), "tiny_llama", MATH)
    assert made.gates == 2
    assert made.trainable == 2 + 2 * 2 * (64 + 128)
    assert [kind.name for kind in made.kinds] == ["gate_proj", "gates"]


@pytest.mark.parametrize(
    "method",
    [
        bola(QKVUD, 4, 8, 8),
        lora(QKVUD, 4),
        lora(QKVUD, 4, use_dora=True),
        adapter("peft.ShiraConfig", target_modules=QKVUD, r=4),
        partitioned(QKVUD, 4, 1),
    ],
    ids=["bola", "lora", "dora", "shira", "partitioned"],
)
def test_the_plan_counts_what_a_real_adapter_trains_and_stores(planned, model_of, method):
    made = planned(method, "tiny_llama", MATH)
    fields = {name: value for name, value in method["config"].items() if name != "_target_"}
    package, _, name = method["name"].partition(".")
    config_class = getattr(importlib.import_module(package), name)
    net = load_host(model_of("tiny_llama"), kind="generate", labels=0, seed=0).net
    real = get_peft_model(net, config_class(**copy.deepcopy(fields)))
    assert made.trainable == sum(p.numel() for p in real.parameters() if p.requires_grad)
    saved = get_peft_model_state_dict(real, save_embedding_layers=False)
    assert made.stored == sum(value.numel() for value in saved.values())


def test_a_partitioned_lora_keeps_the_layers_own_inputs_where_pefts_keeps_float32_copies(planned):
    ours, pefts = (planned(method(QKVUD, 32), "llama2_7b", MATH).memory for method in (partitioned, lora))
    tokens, layers = 4096, 32
    copies = 4 * (4 * 4096 + 11008)  # bytes of a token and a layer: q, k, v and up read 4,096 numbers each
    shared = 2 * (2 * 4096 + 11008)
    assert pefts.activations - ours.activations == tokens * layers * (copies - shared)


def test_pissa_is_stored_with_twice_the_rank(planned):
    made = planned(lora(QKVUD, 4, init_lora_weights="pissa_niter_16"), "tiny_llama", MATH)
    assert made.stored == 2 * made.trainable


def test_full_finetuning_trains_and_stores_everything(planned):
    method = {"name": "full_finetuning", "_target_": "tombola.methods.FullFinetuning"}
    made = planned(method, "roberta_base", COLA)
    assert made.trainable == made.stored == made.base == made.total - made.head
    assert made.frozen == 0
    assert [kind.name for kind in made.kinds] == [*ROBERTA_LINEARS, "rest", "head"]
    assert made.head == 592_130


def test_the_base_trains_its_head_or_nothing(planned):
    method = {"name": "base", "_target_": "tombola.methods.Base"}
    encoder, decoder = planned(method, "roberta_base", COLA), planned(method, "llama3_8b", MATH)
    assert (encoder.trainable, encoder.head, encoder.steps) == (0, 592_130, 3 * 535)
    assert (decoder.trainable, decoder.head, decoder.steps) == (0, 0, 0)


def test_a_method_without_an_adapter_config_is_refused(planned):
    with pytest.raises(ValueError, match=r"cannot count method=rounds: tombola.methods.Rounds has no method.config"):
        planned({"name": "rounds", "_target_": "tombola.methods.Rounds"}, "tiny_llama", MATH)


def test_a_grid_that_does_not_divide_is_the_tuners_error(planned):
    with pytest.raises(ValueError, match="q_proj"):
        planned(bola(QKVUD, 4, 7, 8), "tiny_llama", MATH)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 1860),  # 3 * ceil(9919 / 16)
        ({"batch_size": 128}, 234),
        ({"epochs": 0.5}, 310),
        ({"max_rows": 64}, 12),
        ({"max_steps": 100}, 100),
        ({"validation_rows": 120, "batch_size": 9799}, 3),
    ],
)
def test_steps_follow_rows_batch_and_caps(training, changes, steps):
    assert optimizer_steps(MATH, training | changes) == steps


def test_steps_of_unknown_rows_are_unknown_unless_capped(planned, training):
    task = {**CARS, "rows": {"train": None}}
    assert optimizer_steps(task, training | {"max_steps": 7}) == 7
    made = planned(lora(CLIP_LINEARS, 8), "clip_vit_b32", task)
    assert made.steps is None
    assert "steps unknown" in made.render().renderables[-1]


def test_rows_are_not_cut_where_the_task_has_a_validation_split(training):
    task = {**MATH, "rows": {"train": 100, "validation": 10}}
    assert optimizer_steps(task, training | {"validation_rows": 50, "batch_size": 1, "epochs": 1}) == 100


@pytest.mark.parametrize(
    ("batch_size", "nproc", "tokens"),
    [(128, 1, 4096), (17, 1, 4096), (8, 1, 2048), (8, 4, 512), (1, 8, 256)],
)
def test_a_micro_batch_holds_the_budget_or_the_ranks_rows(model_of, training, batch_size, nproc, tokens):
    launch = {"kind": "ddp", "nproc": nproc}
    assert micro_batch_tokens(model_of("llama3_8b"), training | {"batch_size": batch_size}, launch, 256) == tokens


def test_images_count_their_patches(planned):
    made = planned(lora(CLIP_LINEARS, 8), "clip_vit_b32", CARS, batch_size=64, token_budget=1960)
    assert made.micro_batch_tokens == 10 * 50  # 196 tokens of budget an image, 7 * 7 patches and a class token


def test_the_rendered_plan_shows_the_numbers(planned):
    console = Console(width=100, no_color=True)
    with console.capture() as captured:
        console.print(planned(bola(QK, 8, 24, 32), "roberta_base", COLA).render())
    text = captured.get()
    for shown in ("294,912 trainable parameters", "592,130", "query", "weights", "optimizer", "1,605 optimizer steps"):
        assert shown in text


DIGITS = {"name": "textual_mnist", "kind": "generate", "labels": 0, "rows": {"train": 59400}, "tokens": {"train": 860}}
SMOL = [*QKVUD, "o_proj", "gate_proj"]


def gated(**fields: Any) -> dict[str, Any]:
    """RIGSA's dense gated delta."""
    return adapter("tombola.SparseDeltaConfig", target_modules=SMOL, support="full", gate=True, **fields)


def test_rigsa_fits_one_24_gb_card_with_some_settings(planned):
    made = planned(gated(), "smollm2_1b7", DIGITS, mixed_precision="bf16")
    assert (made.trainable - made.gates, made.gates) == (1_610_612_736, 7 * 24)
    fits = {(one.values_dtype, one.optimizer, one.gradient_checkpointing): one.fits for one in made.settings}
    assert len(fits) == 8
    assert not fits["float32", "adamw", False]
    assert not fits["float32", "adamw", True]
    assert fits["float32", "adamw_8bit", True]
    assert fits["bfloat16", "adamw_8bit", True]
    # by hand: base and values in bfloat16, gradients, two moments of a byte and their blocks' largest
    tight = next(one.memory for one in made.settings if one.fits and one.values_dtype == "bfloat16")
    assert tight.weights + tight.gradients == pytest.approx(2 * (1.711e9 + 2 * 1.611e9), rel=1e-3)
    assert tight.optimizer == pytest.approx(1.611e9 * (2 + 8 / 256), rel=1e-3)


def test_a_setting_that_is_chosen_is_the_plan_s_own(planned):
    first = planned(gated(), "smollm2_1b7", DIGITS)
    for one in first.settings:
        fields = {"optimizer": one.optimizer, "gradient_checkpointing": one.gradient_checkpointing}
        chosen = planned(gated(values_dtype=one.values_dtype), "smollm2_1b7", DIGITS, **fields)
        assert chosen.memory == one.memory
        assert chosen.settings == first.settings


def test_the_settings_are_rendered_with_what_to_type(planned):
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(planned(gated(), "smollm2_1b7", DIGITS).render())
    text = captured.get()
    assert "fits 24 GB?" in text
    assert (
        "for the first that fits type method.config.values_dtype=float32 training.optimizer=adamw_8bit "
        "training.gradient_checkpointing=true"
    ) in text


def test_small_deltas_others_and_zero_get_no_settings(planned):
    assert (
        planned(
            gated() | {"config": gated()["config"] | {"support": "random", "count": 100}}, "smollm2_1b7", DIGITS
        ).settings
        == ()
    )
    assert planned(lora(SMOL, 1024), "smollm2_1b7", DIGITS).settings == ()
    assert planned(gated(), "smollm2_1b7", DIGITS, launch={"kind": "zero2", "nproc": 2}).settings == ()


def test_sparse_adapters_need_the_memory_of_their_dense_first_phase(planned):
    config = {"_target_": "tombola.SparseDeltaConfig", "target_modules": ["qkv_proj"], "density": 0.1}
    method = {"name": "sparse_adapter", "_target_": "tombola.methods.SparseAdapter", "config": config}
    made = planned(method, "phi3_mini", MATH)
    entries = 32 * 3072 * 9216
    assert (made.trainable, made.dense) == (90_596_960, entries)
    assert made.memory.weights == 2 * 3_821_079_552 + 4 * entries
    assert (made.memory.gradients, made.memory.optimizer) == (4 * entries, 8 * entries)
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(made.render())
    assert "of the first phase, which trains all 905,969,664 entries of the targets" in captured.get()
