import copy
import importlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from tombola.tasks import DataError, Example, Generation, Shot, TextFormat, encode, encoding, tokenised

keeping = importlib.import_module("tombola.tasks.tokenised")  # in the package the name is the function's

EXAMPLES = [Example(f"Q {number}: ", f"yes, {number} times", "") for number in range(30)]


def task(**options):
    fields = {"name": "t", "version": 1, "answers_by": "generate", "generation": Generation(8), "format": TextFormat()}
    return SimpleNamespace(**{**fields, **options})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "FEWEST_ROWS", 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tombola" / "tokenised"


@pytest.fixture
def made(monkeypatch):
    """How many times rows were really tokenised."""
    calls, whole = [], encoding.encode

    def counted(*args, **options):
        calls.append(len(args[1]))
        return whole(*args, **options)

    monkeypatch.setattr(encoding, "encode", counted)
    return calls


def rows(tokenizer, task=task(), examples=EXAMPLES, max_length=50, **options):  # noqa: B008  plain values
    return tokenised(task, examples, tokenizer, max_length=max_length, **options)


def test_the_second_time_they_are_read(byte_tokenizer, folder, made):
    expected = encode(task(), EXAMPLES, byte_tokenizer, max_length=50)
    assert rows(byte_tokenizer) == rows(byte_tokenizer) == expected
    assert len(made) == 1
    assert type(rows(byte_tokenizer)[0]["labels"][-1]) is int
    assert sorted(path.suffix for path in folder.iterdir()) == [".lock", ".safetensors"]


@pytest.mark.parametrize("targets", [range(30), [number / 7 for number in range(30)]])
def test_labels_come_back_as_they_were(word_tokenizer, made, targets):
    examples = [Example("1 2 3 4"[: 1 + number % 7], target, target) for number, target in enumerate(targets)]
    labelled = task(answers_by="classify")
    expected = encode(labelled, examples, word_tokenizer, max_length=5)
    found = [rows(word_tokenizer, labelled, examples, 5) for _ in range(2)]
    assert found == [expected, expected]
    assert len(made) == 1
    assert type(found[1][3]["label"]) is type(targets[3])


def test_rows_that_were_cut_are_counted_every_time(byte_tokenizer, made):
    counted = []
    for _ in range(2):
        rows(byte_tokenizer, max_length=18, on_cut=counted.append)
    assert counted == [20, 20]
    assert len(made) == 1


OTHERS = {
    "format": {"task": task(format=TextFormat(loss_on="all"))},
    "version": {"task": task(version=2)},
    "length": {"max_length": 40},
    "target": {"examples": [*EXAMPLES[:-1], Example("Q 29: ", "yes, 28 times", "")]},
    "prompt": {"examples": [*EXAMPLES[:-1], Example("Q 28: ", "yes, 29 times", "")]},
    "shots": {"examples": [*EXAMPLES[:-1], Example("Q 29: ", "yes, 29 times", "", shots=(Shot("a", "b"),))]},
    "order": {"examples": EXAMPLES[::-1]},
}


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_decides_the_rows_decides_the_file(byte_tokenizer, made, other):
    rows(byte_tokenizer)
    rows(byte_tokenizer, **OTHERS[other])
    assert len(made) == 2


def test_another_tokenizer_has_files_of_its_own(byte_tokenizer, chat_tokenizer, word_tokenizer, made):
    rows(byte_tokenizer)  # which has the chat template here
    assert len(made) == 1
    rows(word_tokenizer, task(format=TextFormat(ends=False)))
    assert len(made) == 2
    chat_tokenizer.chat_template += "\n"
    rows(chat_tokenizer)
    assert len(made) == 3


def test_a_tokenizer_that_differs_in_its_content_alone(byte_tokenizer, made):
    other = copy.deepcopy(byte_tokenizer)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    assert rows(byte_tokenizer) != rows(other)
    assert len(made) == 2


def test_other_code_that_encodes_has_files_of_its_own(byte_tokenizer, made, tmp_path, monkeypatch):
    rows(byte_tokenizer)
    changed = tmp_path / "encoding.py"
    shutil.copy(encoding.__file__, changed)
    changed.write_text(changed.read_text() + "\n# changed\n")
    monkeypatch.setattr(encoding, "__file__", str(changed))
    rows(byte_tokenizer)
    assert len(made) == 2


def torn(path, how):
    content = bytearray(path.read_bytes())
    if how == "short":
        content = content[:-5]
    elif how == "one bit":
        content[-3] ^= 1
    else:
        content = bytearray(how.encode())
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["short", "one bit", "", "no safetensors at all"])
def test_a_torn_file_is_made_again_with_a_warning(byte_tokenizer, folder, made, how):
    expected = rows(byte_tokenizer)
    (path,) = folder.glob("*.safetensors")
    torn(path, how)
    with pytest.warns(UserWarning, match="is torn and made again"):
        assert rows(byte_tokenizer) == expected
    assert len(made) == 2
    assert rows(byte_tokenizer) == expected
    assert len(made) == 2


def test_a_folder_that_cannot_be_written_stops_nothing(byte_tokenizer, tmp_path, made):
    (tmp_path / "tombola").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="tokenised rows are not kept"):
        assert rows(byte_tokenizer) == encode(task(), EXAMPLES, byte_tokenizer, max_length=50)


def test_few_rows_and_processors_of_images_are_not_kept(byte_tokenizer, folder):
    rows(byte_tokenizer, examples=EXAMPLES[:19])
    images = [Example("", number, 0, image=np.full((2, 3, 3), number, np.uint8)) for number in range(30)]
    found = tokenised(
        task(), images, lambda images, **_: {"pixel_values": [torch.from_numpy(np.asarray(images))]}, max_length=9
    )
    assert [row["label"] for row in found] == list(range(30))
    assert not folder.exists()


def test_jobs_that_start_together_tokenise_once(byte_tokenizer, made, monkeypatch):
    """Threads here: each has a lock of its own, and the file's is between them as it is between processes."""
    counted = encoding.encode

    def slowly(*args, **options):
        time.sleep(0.3)
        return counted(*args, **options)

    monkeypatch.setattr(encoding, "encode", slowly)
    with ThreadPoolExecutor(3) as jobs:
        found = list(jobs.map(lambda _: rows(byte_tokenizer), range(3)))
    assert found == [encode(task(), EXAMPLES, byte_tokenizer, max_length=50)] * 3
    assert len(made) == 1


def test_a_refused_row_leaves_the_lock_free(byte_tokenizer):
    refusing = task(format=TextFormat(cut="never"))
    for _ in range(2):
        with pytest.raises(DataError, match="training row 0 has"):
            rows(byte_tokenizer, refusing, max_length=5)
