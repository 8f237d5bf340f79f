"""LoRA-Dash through the real trainer against a plain loop with dense weights, and its saved adapter."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM

from tombola import LoraDashConfig
from tombola.methods import LoraDash, lora_dash
from tombola.methods.attach import attach
from tombola.models import Host
from tombola.training import AcceleratedTrainer, Settings, Window

TARGETS = ["q_proj", "v_proj", "down_proj"]
CONFIG = LoraDashConfig(target_modules=TARGETS, r=2, lora_alpha=3, directions=4)
PATHS = [f"model.layers.{n}.{m}" for n in (0, 1) for m in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")]


def host(dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0}
        net = LlamaForCausalLM(LlamaConfig(**shape, **heads)).to(dtype).eval().requires_grad_(False)
    return Host(net=net, processor=None, role="decoder", task_type="CAUSAL_LM", head=(), name="tiny/llama")


def rows():
    """Of one length, and one batch: neither the order of the data nor padding can matter."""
    ids = torch.randint(3, 32, (8, 10), generator=torch.Generator().manual_seed(5)).tolist()
    return [{"input_ids": one, "labels": one} for one in ids]


def trainer(folder, **changes):
    fields = {"epochs": 6, "batch_size": 8, "lr": 1e-2, "schedule": "linear", "checkpoint_every": 1, **changes}
    return AcceleratedTrainer(settings=Settings(**fields), rows=rows(), run_dir=folder, pad_token_id=0)


def by_hand(start, steps, warmup):
    """LoRA and then directions, as dense weights in a plain loop of AdamW whose rate falls to 0: the deltas by path."""
    net, ids = host(torch.float64).net, torch.tensor([row["input_ids"] for row in rows()])
    weights = {path: net.get_submodule(path).weight for path in PATHS}
    a, b = ({path: start[path][n].clone().requires_grad_() for path in PATHS} for n in (0, 1))
    c = {path: torch.zeros(4, dtype=torch.float64, requires_grad=True) for path in PATHS}
    u = {path: torch.zeros(len(w), 4, dtype=torch.float64) for path, w in weights.items()}
    v = {path: torch.zeros(4, w.shape[1], dtype=torch.float64) for path, w in weights.items()}
    leaves = [*a.values(), *b.values(), *c.values()]
    optimizer = torch.optim.AdamW(leaves, lr=1e-2, weight_decay=0.0)

    def delta(path):
        return 1.5 * b[path] @ a[path] + u[path] @ torch.diag(c[path]) @ v[path]

    for step in range(steps):
        if step == warmup:
            for path, weight in weights.items():
                left, sigma, right = torch.linalg.svd(weight, full_matrices=False)
                change = torch.diag(left.T @ (1.5 * b[path] @ a[path]) @ right.T).detach()
                rates = (change.abs() / sigma).tolist()
                best = sorted(sorted(range(len(rates)), key=lambda i: -rates[i])[:4])
                u[path], v[path] = left[:, best], right[best]
        optimizer.param_groups[0]["lr"] = 1e-2 * (steps - step) / steps
        moved = {f"{path}.weight": weight + delta(path) for path, weight in weights.items()}
        logits = functional_call(net, moved, kwargs={"input_ids": ids}).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {path: delta(path).detach() for path in PATHS}, c


def test_it_is_one_training_of_lora_and_then_of_directions_too(monkeypatch, tmp_path):
    monkeypatch.setattr(lora_dash, "attach", lambda *a, **o: attach(*a, **o).double())
    start = attach(host(torch.float64), CONFIG, seed=0).double().get_base_model()
    layers = {path: start.get_submodule(path) for path in PATHS}
    factors = {
        path: (m.lora_dash_a["default"].weight.detach(), m.lora_dash_b["default"].weight.detach())
        for path, m in layers.items()
    }
    work = trainer(tmp_path)
    model = LoraDash(CONFIG, warmup_steps=2).fit(host(torch.float64), work).get_base_model()
    assert {phase: history.steps for phase, history in work.histories.items()} == {"lora": 2, "dash": 4}
    expected, numbers = by_hand(factors, steps=6, warmup=2)
    for path in PATHS:
        layer = model.get_submodule(path)
        torch.testing.assert_close(layer.get_delta_weight("default"), expected[path], rtol=0, atol=1e-10)
        assert bool((numbers[path].abs() > 1e-4).all()), "the directions are trained"
        torch.testing.assert_close(
            layer.lora_dash_c["default"].weight.detach().abs(), numbers[path].detach().abs(), rtol=0, atol=1e-10
        )


class Noting:
    """Notes what each phase is asked for."""

    def __init__(self, total):
        self.total, self.calls = total, []

    def total_steps(self):
        return self.total

    def train(self, model, *, phase, steps, window, optimizer=None, keep_optimizer=False):
        self.calls.append((phase, steps, window, keep_optimizer))

    def optimizer_state(self, phase):
        return {}


@pytest.mark.parametrize(("total", "first"), [(1000, 100), (200, 100), (120, 60), (5, 2), (1, 0)])
def test_the_warm_up_is_at_most_half_of_a_short_training(total, first):
    noting = Noting(total)
    LoraDash(CONFIG).fit(host(), noting)
    assert noting.calls == [
        ("lora", first, Window("train", 0, total), True),
        ("dash", total - first, Window("train", first, total), False),
    ]


def test_the_moments_go_on_and_those_of_the_numbers_begin(tmp_path):
    work = trainer(tmp_path, optimizer="adamw_per_entry")
    given = {}
    real = work.train
    work.train = lambda model, *, phase, **options: (
        given.update({phase: options}) or real(model, phase=phase, **options)
    )
    LoraDash(CONFIG, warmup_steps=2).fit(host(), work)
    kept, state = work.optimizer_state("lora"), given["dash"]["optimizer"]
    assert kept.keys() == state.keys()
    assert {bool(torch.equal(state[k], v)) for k, v in kept.items() if ".lora_dash_c." not in k} == {True}
    numbers = {k: v for k, v in state.items() if ".lora_dash_c." in k}
    assert {k.partition("/")[0] for k in numbers} == {"exp_avg", "exp_avg_sq", "age"}
    assert all(not bool(v.any()) for v in numbers.values())
    assert {float(v.max()) for k, v in kept.items() if k.startswith("age/")} == {2.0}


@pytest.mark.parametrize("family", ["llama", "roberta", "vit"])
def test_it_is_saved_as_a_plain_lora_of_a_larger_rank(host_of, batch_of, targets, tmp_path, family):
    config = LoraDashConfig(target_modules=targets[family], r=2, lora_alpha=3, directions=4)
    method, batch = LoraDash(config), batch_of(family)
    model = attach(host_of(family), config, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
        lora_dash.choose_directions(model)
    answers = model.eval()(**batch).logits
    method.save(model, tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["peft_type"], saved["r"], saved["lora_alpha"], saved["inference_mode"]) == ("LORA", 6, 9, True)
    assert saved["base_model_name_or_path"] == model.peft_config["default"].base_model_name_or_path
    assert saved["target_modules"] == sorted(targets[family])
    assert "import tombola" not in (tmp_path / "README.md").read_text(), "plain PEFT loads a LoRA"
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {name.rpartition(".lora_")[2] for name in tensors if ".lora_" in name} == {"A.weight", "B.weight"}
    assert any("classifier" in name for name in tensors) == (family != "llama")
    loaded = PeftModel.from_pretrained(host_of(family).net, str(tmp_path)).eval()
    torch.testing.assert_close(loaded(**batch).logits, answers, rtol=1e-5, atol=1e-5)
    assert torch.equal(method.load(host_of(family), tmp_path)(**batch).logits, loaded(**batch).logits)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    method.save(model, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_warm_up_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"warmup_steps must be at least 1. Got 0"):
        replace(LoraDash(CONFIG), warmup_steps=0)
