import io

from rich.console import Console

from tombola.evaluation import evaluation_progress


def test_the_speed_is_in_examples_per_second():
    output = io.StringIO()
    now = iter(range(1000))
    progress = evaluation_progress(Console(file=output, width=120, force_terminal=True))
    progress.get_time = lambda: float(next(now))
    with progress:
        bar = progress.add_task("math GSM8K", total=100)
        for _ in range(5):
            progress.advance(bar, 10)
    text = output.getvalue()
    assert "math GSM8K" in text
    assert "50/100" in text
    assert "examples/s" in text
