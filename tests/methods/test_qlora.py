"""QLoRA where bitsandbytes is installed (on a CPU too), and what is said where it is not."""

import hashlib
from importlib.util import find_spec

import pytest
import torch
from omegaconf import OmegaConf
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tombola.methods import Qlora
from tombola.models import four_bit, load_host
from tombola.training import AcceleratedTrainer, Settings

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs tombola[quantised]")


def method(targets=LINEARS, **options):
    return Qlora(LoraConfig(target_modules=targets, r=2, lora_alpha=4), **options)


@pytest.fixture
def wide_host_of(repository):
    """A family of conf/model: bitsandbytes' kernels for CPUs take widths that 32 divides."""

    def make(family):
        model = OmegaConf.to_container(
            OmegaConf.load(repository / "conf" / "model" / f"tiny_{family}.yaml"), resolve=True
        )
        return load_host(model, kind="generate" if family == "llama" else "classify", labels=3, seed=0)

    return make


def digest(model):
    """Of the packed weights and of what their blocks are scaled by."""
    packed = {name: value for name, value in model.state_dict().items() if ".base_layer." in name}
    return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in packed.items()}


def test_without_bitsandbytes_it_says_what_to_install_and_leaves_the_model(host_of, trainer_of, monkeypatch):
    monkeypatch.setattr(four_bit, "find_spec", lambda name: None)
    host, trainer = host_of("llama"), trainer_of("llama")
    before = [type(module) for module in host.net.modules()]
    with pytest.raises(
        ValueError, match=r"needs bitsandbytes, which is not installed. Install tombola\[quantised\], or"
    ):
        method().fit(host, trainer)
    assert [type(module) for module in host.net.modules()] == before
    assert trainer.phases == []


def test_a_kind_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"quantisation must be one of nf4, fp4. Got 'int4'"):
        method(quantisation="int4")


@needs_bitsandbytes
@pytest.mark.parametrize("family", ["llama", "roberta", "vit"])
def test_every_linear_layer_but_the_heads_is_in_four_bits(wide_host_of, family):
    import bitsandbytes

    host, whole = wide_host_of(family), wide_host_of(family).net
    for net in (host.net, whole):
        for parameter in (p for name, p in net.named_parameters() if name.endswith(".bias")):
            torch.nn.init.ones_(parameter)
    head = host.head or ("lm_head",)
    four_bit.quantise(host.net, host.head, kind="nf4", double=True)
    linears = {path: module for path, module in whole.named_modules() if isinstance(module, nn.Linear)}
    for path, original in linears.items():
        made = host.net.get_submodule(path)
        if path.startswith(head):
            assert type(made) is nn.Linear
            continue
        assert isinstance(made, bitsandbytes.nn.Linear4bit)
        assert (made.weight.quant_type, made.weight.compress_statistics) == ("nf4", True)
        assert made.weight.numel() * 2 == original.weight.numel(), "two numbers a byte"
        x = torch.randn(3, original.in_features, generator=torch.Generator().manual_seed(0))
        # Half of nf4's widest gap, of a block's largest weight, times what is summed over: rounding, and no more.
        bound = 0.16 * original.weight.abs().max() * x.abs().sum(dim=1, keepdim=True)
        difference = (made(x) - original(x)).abs()
        assert bool((difference > 0).any())
        assert bool((difference <= bound).all())
    assert {p.dtype for n, p in host.net.named_parameters() if "norm" in n.lower()} <= {torch.float32}


@needs_bitsandbytes
@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_lora_trains_on_a_base_that_stays_as_it_was_packed(
    wide_host_of, trainer_of, batch_of, tmp_path, targets, family
):
    chosen, trainer, batch = method(targets[family]), trainer_of(family), batch_of(family)
    model = chosen.fit(wide_host_of(family), trainer)
    assert all("lora_" in name or "modules_to_save" in name for name in trainer.trained)
    assert any(bool(p.any()) for name, p in model.named_parameters() if "lora_B" in name), "it has trained"
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert layers
    assert {type(layer).__module__ for layer in layers} == {"peft.tuners.lora.bnb"}
    chosen.save(model, tmp_path)
    loaded = chosen.load(wide_host_of(family), tmp_path)
    assert digest(loaded)
    assert digest(loaded) == digest(model)
    with torch.no_grad():  # on a CPU bitsandbytes computes otherwise for inference
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert "import tombola" not in (tmp_path / "README.md").read_text(), "plain PEFT loads a LoRA"


@needs_bitsandbytes
def test_users_load_it_on_the_base_that_transformers_quantises(wide_host_of, trainer_of, batch_of, tmp_path):
    chosen, batch = method(), batch_of("llama")
    model = chosen.fit(wide_host_of("llama"), trainer_of("llama"))
    chosen.save(model, tmp_path / "adapter")
    wide_host_of("llama").net.save_pretrained(tmp_path / "base")
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    how.bnb_4bit_compute_dtype = torch.float32
    base = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", quantization_config=how, dtype=torch.float32, device_map="cpu"
    )
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert {type(m).__name__ for m in theirs.modules()} == {type(m).__name__ for m in model.modules()}
    with torch.no_grad():
        assert torch.equal(theirs(**batch).logits, model(**batch).logits)


class Death(Exception):
    """A hook that ends the work as a kill does: nothing is saved on the way out."""

    def after_step(self, model, optimizer, step):
        if step == 2:
            raise self


@needs_bitsandbytes
def test_a_run_that_was_killed_ends_as_an_uninterrupted_one(wide_host_of, tmp_path):
    ids = torch.randint(3, 260, (8, 10), generator=torch.Generator().manual_seed(5)).tolist()
    rows = [{"input_ids": one, "labels": one} for one in ids]

    def trainer(name):
        settings = Settings(epochs=2, batch_size=4, lr=1e-2, checkpoint_every=1)
        return AcceleratedTrainer(settings=settings, rows=rows, run_dir=tmp_path / name, pad_token_id=0)

    def fit(name, work):
        model = method(LINEARS).fit(wide_host_of("llama"), work)
        method(LINEARS).save(model, tmp_path / name / "adapter")
        return (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()

    whole, cut = fit("whole", trainer("whole")), trainer("cut")
    real = cut.train
    cut.train = lambda model, *, phase: real(model, phase=phase, hooks=[Death()])
    with pytest.raises(Death):
        fit("cut", cut)
    kept = {name for path in (tmp_path / "cut").rglob("*.safetensors") for name in load_file(path)}
    assert any("lora_A" in name for name in kept)
    assert not any("base_layer" in name for name in kept), "the frozen weights are in no checkpoint"
    assert fit("cut", trainer("cut")) == whole
