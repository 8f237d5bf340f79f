import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from tombola.tasks import DataError, Example, Generation, Shot, TextFormat, encode, prompt_ids, prompt_text
from tombola.tasks.encoding import NO_LOSS


def task(**options):
    fields = {"name": "t", "answers_by": "generate", "generation": Generation(8), "format": TextFormat()}
    return SimpleNamespace(**{**fields, **options})


def text(tokenizer, ids):
    return tokenizer.decode([token for token in ids if token != NO_LOSS])


def test_loss_on_the_answer_and_its_end(byte_tokenizer):
    (row,) = encode(task(), [Example("Q: ", "yes", "yes")], byte_tokenizer, max_length=50)
    assert text(byte_tokenizer, row["input_ids"]) == "Q: yes<eos>"
    assert text(byte_tokenizer, row["labels"]) == "yes<eos>"
    assert len(row["labels"]) == len(row["input_ids"])


def test_loss_on_all_tokens(byte_tokenizer):
    (row,) = encode(
        task(format=TextFormat(loss_on="all")), [Example("Q: ", "yes", "yes")], byte_tokenizer, max_length=50
    )
    assert row["labels"] == row["input_ids"]


def test_the_end_is_left_out_where_it_does_not_fit_or_is_not_asked_for(byte_tokenizer):
    example = Example("Q: ", "yes", "yes")
    (full,) = encode(task(), [example], byte_tokenizer, max_length=6)
    (open_ended,) = encode(task(format=TextFormat(ends=False)), [example], byte_tokenizer, max_length=50)
    assert text(byte_tokenizer, full["input_ids"]) == text(byte_tokenizer, open_ended["input_ids"]) == "Q: yes"


def test_long_rows_are_cut_on_the_right_and_counted(byte_tokenizer):
    counted = []
    examples = [Example("Q: ", "yes, indeed", ""), Example("Q: ", "no", "")]
    rows = encode(task(), examples, byte_tokenizer, max_length=8, on_cut=counted.append)
    assert [text(byte_tokenizer, row["input_ids"]) for row in rows] == ["Q: yes, ", "Q: no<eos>"]
    assert counted == [1]


def test_rows_cut_on_the_left_keep_their_answer_and_its_end(byte_tokenizer):
    counted = []
    examples = [Example("Question: ", "yes", ""), Example("Q: ", "no", "")]
    rows = encode(task(format=TextFormat(cut="left")), examples, byte_tokenizer, max_length=6, on_cut=counted.append)
    assert [text(byte_tokenizer, row["input_ids"]) for row in rows] == [": yes<eos>", "Q: no<eos>"]
    assert [text(byte_tokenizer, row["labels"]) for row in rows] == ["yes<eos>", "no<eos>"]
    assert counted == [1]


def test_a_prompt_keeps_its_last_tokens(byte_tokenizer):
    examples = [Example("Question: ", "yes", ""), Example("Q: ", "no", "")]
    asked = prompt_ids(examples, TextFormat(prompt_tokens=4), byte_tokenizer)
    assert [byte_tokenizer.decode(ids) for ids in asked] == ["on: ", "Q: "]


def test_special_tokens_are_left_out_where_a_task_has_none(byte_tokenizer):
    marked = copy.deepcopy(byte_tokenizer)
    marked.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 0)])
    for special, begun in ((True, 1), (False, 0)):
        text_format = TextFormat(special=special, ends=False)
        (row,) = encode(task(format=text_format), [Example("Q: ", "no", "")], marked, max_length=20)
        (ids,) = prompt_ids([Example("Q: ", "no", "")], text_format, marked)
        assert (row["input_ids"].count(0), ids.count(0)) == (begun, begun)


def test_rows_whose_answer_would_be_cut_off_are_refused(byte_tokenizer):
    format_ = TextFormat(cut="never")
    with pytest.raises(DataError, match=r"training row 1 has 14 tokens .* type training\.max_length=14 or more"):
        encode(
            task(format=format_),
            [Example("Q: ", "no", ""), Example("Q: ", "yes, indeed", "")],
            byte_tokenizer,
            max_length=8,
        )


def test_rows_beyond_one_tokenizer_call_keep_their_order(byte_tokenizer):
    examples = [Example(f"{number}: ", "yes", "") for number in range(600)]
    rows = encode(task(), examples, byte_tokenizer, max_length=50)
    assert [text(byte_tokenizer, row["input_ids"]) for row in rows] == [f"{n}: yes<eos>" for n in range(600)]


def test_one_token_answers_must_be_one_token_of_their_own(byte_tokenizer):
    one = task(generation=Generation(1), format=TextFormat(ends=False))
    (row,) = encode(one, [Example("image", "7", "7", prefix="The digit is ")], byte_tokenizer, max_length=50)
    assert text(byte_tokenizer, row["input_ids"]) == "image\n\nThe digit is 7"
    assert text(byte_tokenizer, row["labels"]) == "7"
    for answer in ("17", "A"):  # two tokens; one that takes the prompt's last space with it
        with pytest.raises(ValueError, match=f"does not keep '{answer}' apart after 'It is '"):
            encode(one, [Example("image", answer, answer, prefix="It is ")], byte_tokenizer, max_length=50)


def test_shots_stand_before_the_question(byte_tokenizer, chat_tokenizer):
    example = Example("which?", "7", "7", prefix="It is ", shots=(Shot("what?", "3"),))
    assert prompt_text(example, TextFormat(), byte_tokenizer) == "what?\n\nIt is 3\n\nwhich?\n\nIt is "
    assert prompt_text(example, TextFormat(chat=True), chat_tokenizer) == (
        "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\nIt is 3<|im_end|>\n"
        "<|im_start|>user\nwhich?<|im_end|>\n<|im_start|>assistant\nIt is "
    )


def test_the_chat_template_writes_the_special_tokens_itself(chat_tokenizer):
    marked = copy.deepcopy(chat_tokenizer)  # one that begins every text, as Llama's does
    marked.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 0)])
    example = Example("which?", "7", "7")
    for chat, begun in ((False, 1), (True, 0)):
        text_format = TextFormat(chat=chat, ends=False)
        (row,) = encode(task(format=text_format), [example], marked, max_length=200)
        (ids,) = prompt_ids([example], text_format, marked)
        assert (row["input_ids"].count(0), ids.count(0)) == (begun, begun)


def test_a_tokenizer_without_chat_template_gets_plain_text(byte_tokenizer):
    assert prompt_text(Example("which?", "7", "7"), TextFormat(chat=True), byte_tokenizer) == "which?"


def test_a_joined_prompt_has_the_tokens_of_the_training_row(byte_tokenizer):
    example = Example("Response: ", "Sam", "")
    (row,) = encode(task(), [example], byte_tokenizer, max_length=50)
    (apart,) = prompt_ids([example], TextFormat(), byte_tokenizer)
    (joined,) = prompt_ids([example], TextFormat(joined=True), byte_tokenizer)
    assert row["input_ids"][: len(joined)] == joined
    assert row["input_ids"][: len(apart)] != apart
    assert byte_tokenizer.decode(joined) == "Response:"


def test_rows_for_a_head(word_tokenizer):
    classify = task(answers_by="classify")
    rows = encode(classify, [Example("1 2 3", 4, 4), Example("1 2 3 4 5", 0, 0)], word_tokenizer, max_length=6)
    assert rows[0] == {"input_ids": [1, 5, 6, 7, 2], "label": 4}
    assert rows[1] == {"input_ids": [1, 5, 6, 7, 8, 2], "label": 0}  # cut, and closed all the same


def test_rows_of_images():
    def processor(images, return_tensors):
        return {"pixel_values": torch.as_tensor(images)[None]}

    (row,) = encode(task(answers_by="classify"), [Example("", 3, 3, image=np.ones((3, 2, 2)))], processor, max_length=1)
    assert (row["label"], row["size"]) == (3, (2, 2))
    assert row["view"](None).shape == (3, 2, 2)


def test_no_examples_make_no_rows(byte_tokenizer):
    assert encode(task(), [], byte_tokenizer, max_length=8) == []


@pytest.fixture(scope="module")
def pair_tokenizer(word_tokenizer):
    """As BERT's: [CLS] first [SEP] second [SEP], the second of type 1."""
    paired = copy.deepcopy(word_tokenizer)
    paired.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    paired.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return paired


def test_a_pair_is_given_to_the_tokenizer_as_a_pair(pair_tokenizer):
    (row,) = encode(task(answers_by="regress"), [Example("1 2", 2.5, 2.5, pair="3")], pair_tokenizer, max_length=9)
    assert row == {"input_ids": [1, 5, 6, 2, 7, 2], "token_type_ids": [0, 0, 0, 0, 1, 1], "label": 2.5}


def test_a_single_text_has_no_types(pair_tokenizer):
    (row,) = encode(task(answers_by="classify"), [Example("1 2", 2, 2)], pair_tokenizer, max_length=9)
    assert row == {"input_ids": [1, 5, 6, 2], "label": 2}


def test_of_a_pair_that_is_too_long_the_longer_text_is_cut(pair_tokenizer):
    counted = []
    long, short = Example("1 2 3 4 5 6", 0, 0, pair="7 8"), Example("1", 1, 1, pair="2")
    rows = encode(task(answers_by="classify"), [long, short], pair_tokenizer, max_length=8, on_cut=counted.append)
    assert rows[0] == {"input_ids": [1, 5, 6, 7, 2, 11, 12, 2], "token_type_ids": [0, 0, 0, 0, 0, 1, 1, 1], "label": 0}
    assert rows[1]["input_ids"] == [1, 5, 2, 6, 2]
    assert counted == [1]


def test_a_tokenizer_without_types_gets_none(pair_tokenizer):
    plain = copy.deepcopy(pair_tokenizer)  # as RoBERTa's
    plain.model_input_names = ["input_ids", "attention_mask"]
    (row,) = encode(task(answers_by="classify"), [Example("1", 2, 2, pair="3")], plain, max_length=9)
    assert row == {"input_ids": [1, 5, 2, 7, 2], "label": 2}
