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
    rows = {"ft-training_set/math_10k.json": [math_row(n) for n in range(30)]}
    for name in ("MultiArith", "gsm8k", "AddSub", "SingleEq", "SVAMP", "mawps"):
        rows[f"dataset/{name}/test.json"] = [math_row(n) for n in range(5)]
    rows["dataset/AQuA/test.json"] = [math_row(n, letter) for n, letter in enumerate("ABCDE")]
    for file, content in rows.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(content))
    return tmp_path
