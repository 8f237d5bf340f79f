import numpy as np
from matplotlib.image import imread
from peft import LoraConfig, get_peft_model

import tombola
from tombola.pictures import draw_moved, draw_ticket, load_moved
from tombola.pictures.ticket import _colours, _explain, _paint, _scale

BOLA = tombola.BolaConfig(k=3, in_divs=4, out_divs=4, target_modules=["q_proj", "v_proj"])
LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])


def draw(make, scramble, folder, config, **options):
    model = scramble(get_peft_model(make(), config))
    return draw_ticket(model, folder / "ticket.png", f"{config.peft_type.value} on llama", **options)


def test_a_run_gets_a_picture_its_maps_and_a_summary(llama, scramble, tmp_path):
    summary = draw(llama, scramble, tmp_path / "bola-run", BOLA)
    title, moved = load_moved(tmp_path / "bola-run" / "ticket.safetensors")
    picture = imread(tmp_path / "bola-run" / "ticket.png")
    assert title == "BOLA on llama"
    assert summary["unique_blocks"] == sum(move.unique_blocks for move in moved.values())
    assert summary["candidates"] == 12
    coloured = (picture[..., :3].max(axis=2) - picture[..., :3].min(axis=2)) > 0.3
    assert coloured.sum() > 1000, "the selected blocks are drawn"


def test_a_sibling_is_drawn_underneath(llama, scramble, tmp_path):
    draw(llama, scramble, tmp_path / "lora", LORA, grid=(4, 4))
    draw(llama, scramble, tmp_path / "alone", BOLA)
    draw(llama, scramble, tmp_path / "both", BOLA, beside=tmp_path / "lora" / "ticket.safetensors")
    sizes = {name: imread(tmp_path / name / "ticket.png").shape for name in ("alone", "both")}
    assert sizes["both"][0] > 1.6 * sizes["alone"][0]
    assert sizes["both"][1] == sizes["alone"][1]


def test_the_same_maps_are_the_same_file(llama, scramble, tmp_path):
    draw(llama, scramble, tmp_path / "run", BOLA)
    title, moved = load_moved(tmp_path / "run" / "ticket.safetensors")
    draw_moved([(title, moved)], tmp_path / "again.png", caption="run")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "run" / "ticket.png").read_bytes()


def test_a_model_without_an_adapter_gets_no_picture(llama, tmp_path):
    assert draw_ticket(llama(), tmp_path / "ticket.png", "base") == {}
    assert not list(tmp_path.iterdir())


def test_an_adapter_that_moved_nothing_is_drawn_white(llama, tmp_path):
    summary = draw_ticket(get_peft_model(llama(), LORA), tmp_path / "run" / "ticket.png", "untrained")
    assert summary["moved_share"] == 0.0
    assert (tmp_path / "run" / "ticket.png").exists()


def test_cells_that_moved_a_little_are_told_from_those_that_did_not(llama, scramble):
    from tombola.pictures import read_moved

    moved = read_moved(scramble(get_peft_model(llama(), LORA)))
    painted = _paint(np.array([[-1.0, 0.0, 1e-9]], np.float32), _scale(moved), _colours())
    assert painted[0, 0].min() == painted[0, 1].min() == 1.0
    assert painted[0, 2, 2] < 0.7


def test_the_heading_says_what_moved(llama, scramble):
    from tombola.pictures import read_moved

    bola = _explain(read_moved(scramble(get_peft_model(llama(), BOLA))))
    lora = _explain(read_moved(scramble(get_peft_model(llama(), LORA))))
    assert "of 4 weights moved; white cells did not; under each tile its distinct blocks of k" in bola
    assert lora == "100.00 % of the entries of 4 weights moved"
