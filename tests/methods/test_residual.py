import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from tombola.methods import Adapter
from tombola.methods.residual import double_rank, export_plain_lora, is_pissa, stack_difference


def test_stacked_factors_are_the_difference_of_the_products():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    trained = {"q.lora_A.weight": draw(2, 5), "q.lora_B.weight": draw(4, 2), "head.weight": draw(3, 3)}
    start = {"q.lora_A.weight": draw(2, 5), "q.lora_B.weight": draw(4, 2)}
    stacked = stack_difference(trained, start)
    expected = (
        trained["q.lora_B.weight"] @ trained["q.lora_A.weight"] - start["q.lora_B.weight"] @ start["q.lora_A.weight"]
    )
    assert torch.allclose(stacked["q.lora_B.weight"] @ stacked["q.lora_A.weight"], expected, atol=1e-6)
    assert stacked["head.weight"] is trained["head.weight"]


def test_doubling_keeps_the_scaling():
    plain = double_rank(LoraConfig(r=4, lora_alpha=8, rank_pattern={"q": 2}, alpha_pattern={"q": 6}))
    assert (plain.r, plain.lora_alpha, plain.rank_pattern, plain.alpha_pattern) == (8, 16, {"q": 4}, {"q": 12})
    rooted = double_rank(LoraConfig(r=4, lora_alpha=8, use_rslora=True, init_lora_weights="pissa"))
    assert rooted.lora_alpha / math.sqrt(rooted.r) == pytest.approx(8 / math.sqrt(4))
    assert not is_pissa(rooted)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4"])
@pytest.mark.parametrize("rooted", [False, True])
def test_the_saved_folder_is_a_plain_lora_of_twice_the_rank(host_of, trainer_of, batch_of, tmp_path, init, rooted):
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["query"], init_lora_weights=init, use_rslora=rooted)
    adapter = Adapter(config)
    model = adapter.fit(host_of("roberta"), trainer_of("roberta"))
    adapter.save(model, tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["r"], saved["init_lora_weights"], saved["base_model_name_or_path"]) == (4, True, "tiny/roberta")
    loaded, batch = adapter.load(host_of("roberta"), tmp_path), batch_of("roberta")
    assert torch.allclose(loaded(**batch).logits, model(**batch).logits, atol=1e-5)
    heads = [name for name in load_file(tmp_path / "adapter_model.safetensors") if "classifier" in name]
    assert len(heads) == 4, "PEFT's own conversion loses the head"


def test_the_base_is_the_residual_and_the_start_changes_nothing(host_of, batch_of):
    from tombola.methods.attach import attach

    original = host_of("llama").net
    model = attach(host_of("llama"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa"), seed=0)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    weight = original.model.layers[0].self_attn.q_proj.weight
    assert torch.allclose(layer.base_layer.weight + layer.get_delta_weight("default"), weight, atol=1e-6)
    assert torch.linalg.matrix_norm(layer.base_layer.weight, 2) < torch.linalg.matrix_norm(weight, 2)
    batch = batch_of("llama")
    assert torch.allclose(model(**batch).logits, original(**batch).logits, atol=1e-5)


def test_saving_again_does_not_double_again(host_of, trainer_of, tmp_path):
    adapter = Adapter(LoraConfig(r=2, target_modules=["query"], init_lora_weights="pissa"))
    model = adapter.fit(host_of("roberta"), trainer_of("roberta"))
    adapter.save(model, tmp_path / "a")
    adapter.save(model, tmp_path / "b")
    adapter.save(model, tmp_path / "a")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_model_that_lost_its_start_is_refused(host_of, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa")
    with pytest.raises(ValueError, match=r"does not carry the factors it started from.*Adapter\.fit"):
        export_plain_lora(get_peft_model(host_of("llama").net, config), tmp_path)
