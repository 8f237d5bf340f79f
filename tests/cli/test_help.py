import os
import subprocess
import sys

import pytest

from tombola_cli.config.choices import CONF, choices
from tombola_cli.help import SHOWN, help_text


def test_help_shows_every_choice_and_three_worked_examples():
    text = help_text(CONF)
    words = set(text.replace(",", " ").split())
    for group in SHOWN:
        # parts of recipes lie in folders whose name is no combination
        names = {name for name in choices(CONF)[group] if group != "recipe" or "-" in name.partition("/")[0]}
        assert names <= words, group
    assert [f"  {number}. " in text for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert text.count("python train.py ") >= 5
    assert max(map(len, text.splitlines())) <= 120


def test_its_examples_are_right():
    from tombola_cli.config.check import check
    from tombola_cli.config.compose import compose
    from tombola_cli.config.overrides import expand

    lines = [line.split("python train.py ")[1] for line in help_text(CONF).splitlines() if "  python train.py " in line]
    examples = [line.removeprefix("-m ").split() for line in lines if "GROUP" not in line and "..." not in line]
    assert len(examples) == 3
    for words in examples:
        for job in expand(words, choices(CONF)):
            assert check(compose(job)) == [], job


@pytest.mark.parametrize("program", ["train.py", "eval.py", "scripts/export.py"])
def test_a_reader_that_stops_early_is_no_error(repository, program):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, program, "--help"], cwd=repository, stdout=write_end, stderr=subprocess.PIPE, text=True
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")
