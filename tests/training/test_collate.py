from functools import partial

import torch

from tombola.training.collate import collate

CPU = torch.device("cpu")
ROWS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
    {"input_ids": [9, 10], "labels": [9, 10]},
]


def test_right_padding() -> None:
    batch = collate(ROWS, pad_token_id=0, padding_side="right", device=CPU)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8], [9, 10, 0, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [[-100, -100, 7, 8], [-100, 10, -100, -100]]
    assert batch.predicts_from is not None
    assert batch.predicts_from.tolist() == [0, 1, 2]
    assert "position_ids" not in batch.inputs


def test_left_padding_numbers_positions_from_the_first_token_and_predicts_nothing_from_padding() -> None:
    batch = collate(ROWS, pad_token_id=0, padding_side="left", device=CPU)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8], [0, 0, 9, 10]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert batch.labels.tolist() == [[-100, -100, 7, 8], [-100, -100, -100, 10]]
    assert batch.predicts_from is not None
    assert batch.predicts_from.tolist() == [1, 2]


def test_rows_with_one_label() -> None:
    rows = [{"input_ids": [5, 6], "label": 2}, {"input_ids": [7], "label": 0}]
    batch = collate(rows, pad_token_id=1, padding_side="right", device=CPU)
    assert batch.inputs["input_ids"].tolist() == [[5, 6], [7, 1]]
    assert batch.labels.tolist() == [2, 0]
    assert batch.predicts_from is None


def test_images() -> None:
    rows = [{"pixel_values": torch.full((3, 4, 4), float(i)), "label": i} for i in range(2)]
    batch = collate(rows, pad_token_id=0, padding_side="right", device=CPU)
    assert batch.inputs["pixel_values"].shape == (2, 3, 4, 4)
    assert batch.labels.tolist() == [0, 1]


def test_views_are_made_from_the_seed() -> None:
    def view(number: int, seed: int | None) -> torch.Tensor:
        return torch.full((3, 4, 5), float(number if seed is None else 10 * seed + number))

    rows = [{"view": partial(view, i), "size": (4, 5), "label": i} for i in range(3)]
    seen = collate(rows, pad_token_id=0, padding_side="right", device=CPU)
    drawn = collate(rows, pad_token_id=0, padding_side="right", device=CPU, seed=4)
    assert seen.inputs["pixel_values"][:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert drawn.inputs["pixel_values"][:, 0, 0, 0].tolist() == [40.0, 41.0, 42.0]
    assert (drawn.inputs["pixel_values"].shape, drawn.labels.tolist()) == ((3, 3, 4, 5), [0, 1, 2])


def test_the_types_of_pairs_are_padded_beside_their_tokens() -> None:
    rows = [
        {"input_ids": [1, 5, 2, 6, 2], "token_type_ids": [0, 0, 0, 1, 1], "label": 0.5},
        {"input_ids": [1, 2, 2], "token_type_ids": [0, 0, 1], "label": 4.0},
    ]
    batch = collate(rows, pad_token_id=9, padding_side="right", device=CPU)
    assert batch.inputs["input_ids"].tolist() == [[1, 5, 2, 6, 2], [1, 2, 2, 9, 9]]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]
    assert batch.labels.tolist() == [0.5, 4.0]
    assert batch.labels.dtype == torch.float32
