import io
from pathlib import Path

from rich.console import Console
from tests.training.tiny import adapted, rows

from tombola.training import AcceleratedTrainer, Settings
from tombola.training.progress import PhaseProgress


def shown(terminal: bool, folder: Path) -> str:
    text = io.StringIO()
    AcceleratedTrainer(
        settings=Settings(epochs=1, batch_size=8),
        rows=rows(),
        run_dir=folder,
        pad_token_id=0,
        console=Console(file=text, force_terminal=terminal, width=120),
    ).train(adapted(), phase="train")
    return text.getvalue()


def test_a_terminal_sees_a_bar_with_loss_rate_speed_and_time(tmp_path: Path) -> None:
    text = shown(True, tmp_path)
    for part in ("train", "4/4", "loss 4.", "lr 2.50e-04", "tokens/s", "0:00:00"):
        assert part in text, part


def test_elsewhere_a_line_now_and_then_and_one_at_the_end(tmp_path: Path) -> None:
    lines = shown(False, tmp_path).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("train 4/4  loss 4.")


def test_lines_are_some_seconds_apart(monkeypatch: object) -> None:
    text = io.StringIO()
    with PhaseProgress(Console(file=text), "train", total=100) as progress:
        for step in range(1, 6):
            progress.last_line -= 4.0
            progress.show(step, f"at {step}")
    assert text.getvalue() == "train 3/100  at 3\n"


def test_without_a_console_nothing_is_shown() -> None:
    with PhaseProgress(None, "train", total=2) as progress:
        progress.show(2, "text")
    assert progress.bar is None
