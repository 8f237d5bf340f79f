"""Small tokenizers made here, and small files in the layouts of the data sets."""

import gzip
import json
import struct

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def byte_tokenizer():
    """One token a byte, but a space is joined to a capital that follows it, as byte-pair vocabularies do."""
    joined = [("Ġ", capital) for capital in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    tokens = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in joined)]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, joined))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@pytest.fixture
def chat_tokenizer(byte_tokenizer):
    byte_tokenizer.chat_template = CHAT
    yield byte_tokenizer
    byte_tokenizer.chat_template = None


@pytest.fixture(scope="session")
def word_tokenizer():
    """An encoder's: digits are words, and every row is set between [CLS] and [SEP]."""
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"0123456789"]
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", sep_token="[SEP]")


def write_idx(path, values):
    header = b"\x00\x00\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


@pytest.fixture
def write_array():
    return write_idx


@pytest.fixture
def mnist_folder(tmp_path):
    """300 training and 20 test images of noise in MNIST's four files."""
    noise = np.random.default_rng(0)
    for part, rows in (("train", 300), ("t10k", 20)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", noise.integers(0, 256, (rows, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(rows) % 10)
    return tmp_path


def math_row(number, answer=None):
    answer = answer or f"{number}.0"
    return {
        "instruction": f"What is {number} + 0?",
        "input": "",
        "output": f"It is {number}. The answer is {answer}.",
        "answer": answer,
    }


@pytest.fixture
def math_folder(tmp_path):
    """LLM-Adapters' layout with 30 training rows and 5 of each test set."""
    rows = {"ft-training_set/math_10k.json": [math_row(100 + n) for n in range(30)]}
    for name in ("MultiArith", "gsm8k", "AddSub", "SingleEq", "SVAMP", "mawps"):
        rows[f"dataset/{name}/test.json"] = [math_row(n) for n in range(5)]
    rows["dataset/AQuA/test.json"] = [math_row(n, letter) for n, letter in enumerate("ABCDE")]
    for file, content in rows.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(content))
    return tmp_path


FLAN = {"held_in": ["one", "two"], "held_out": ["three"]}


def write_lines(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.fixture
def write_rows():
    return write_lines


@pytest.fixture
def flan_folder(tmp_path):
    """Three tasks in the layout of flan20: 6, 3 and 2 rows each, mixed."""
    rows = {"train": 6, "validation": 3, "test": 2}
    names = [*FLAN["held_in"], *FLAN["held_out"]]
    for split, count in rows.items():
        lines = [(n, name) for n in range(count) for name in names]
        write_lines(
            tmp_path / f"{split}.jsonl.gz",
            [{"task_name": name, "source": f"{split} {name} {n}?", "target": f"answer {n}"} for n, name in lines],
        )
    listed = {**FLAN, "tasks": [{"task_name": name, "rows": rows} for name in names]}
    (tmp_path / "tasks.json").write_text(json.dumps(listed))
    return tmp_path


@pytest.fixture
def image_folder(tmp_path):
    """Three classes of 12 x 10 RGB images: 9 to train on, 6 to test on, without names of the classes."""
    noise = np.random.default_rng(0)
    for part, rows in (("train", 9), ("test", 6)):
        write_idx(tmp_path / f"cifar10-{part}-images-idx4-ubyte.gz", noise.integers(0, 256, (rows, 12, 10, 3)))
        write_idx(tmp_path / f"cifar10-{part}-labels-idx1-ubyte.gz", np.arange(rows) % 3)
    return tmp_path


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """`put(repo, {file: table})` lays parquet files into a hub cache as a download does; returns the commit."""
    import datasets.config
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    commit = "0123456789abcdef0123456789abcdef01234567"

    def put(repo, files):
        folder = tmp_path / "hub" / f"datasets--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs/main").write_text(commit)
        for name, table in files.items():
            path = folder / "snapshots" / commit / name
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(str(path))
        return commit

    return put


COMMONSENSE = {
    "boolq": ("true", "false"),
    "piqa": ("solution1", "solution2"),
    "social_i_qa": ("answer1", "answer2", "answer3"),
    "hellaswag": ("ending1", "ending2", "ending3", "ending4"),
    "winogrande": ("option1", "option2"),
    "ARC-Easy": ("answer1", "answer2", "answer3", "answer4", "answer5"),
    "ARC-Challenge": ("answer1", "answer2", "answer3", "answer4"),
    "openbookqa": ("answer1", "answer2", "answer3", "answer4"),
}


def commonsense_row(folder, number):
    options = COMMONSENSE[folder]
    answer = options[number % len(options)]
    return {
        "instruction": f"Please choose: which is {number} of {folder}?\n\nAnswer format: {'/'.join(options)}",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
    }


@pytest.fixture
def commonsense_folder(tmp_path):
    """LLM-Adapters' layout with 30 training rows of all eight sets and 5 of each test set."""
    folders = list(COMMONSENSE)
    files = {"ft-training_set/commonsense_170k.json": [commonsense_row(folders[n % 8], 100 + n) for n in range(30)]}
    files |= {f"dataset/{folder}/test.json": [commonsense_row(folder, n) for n in range(5)] for folder in folders}
    for file, rows in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(rows))
    return tmp_path
