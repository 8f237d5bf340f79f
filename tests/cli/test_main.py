import pytest
import yaml

from tombola_cli.config.compose import compose
from tombola_cli.main import Command, UsageError, main, read_command


def test_words_and_flags_in_any_order():
    assert read_command(["seed=0,1", "-m", "method=lora"]) == Command(("seed=0,1", "method=lora"), multirun=True)
    assert read_command(["--cfg", "job", "seed=1"]) == Command(("seed=1",), show_config=True)
    assert read_command(["--cfg=job"]) == Command((), show_config=True)
    assert read_command(["-h"]).help


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--multrun"], "--multrun: there is no such option; there are --help, --cfg job and --multirun"),
        (["--cfg", "all"], "--cfg all: only --cfg job is there"),
        (["--cfg"], "--cfg : only --cfg job is there"),
    ],
)
def test_an_unknown_option(words, line):
    with pytest.raises(UsageError, match=line):
        read_command(words)


def test_an_unknown_option_is_an_error_line(capsys):
    assert main(["--multrun"]) == 1
    assert capsys.readouterr().err.startswith("error: --multrun: there is no such option")


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "Three worked examples" in capsys.readouterr().out


def test_the_composed_config_can_be_printed_and_read_back(capsys):
    words = ["method=lora", "model=tiny_llama", "seed=3"]
    assert main([*words, "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == compose(words)


def test_every_problem_is_a_line_of_its_own(capsys):
    assert main(["method.aplha=3", "training.lr=-1", "model=llama3_8b", "task=math", "log=wandbb"]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert [line.split(":")[1].strip() for line in lines] == [
        "log=wandbb",
        "method.aplha=3",
        "training.lr=-1.0",
        "model=llama3_8b",
    ]
    assert all(line.startswith("error: ") for line in lines)


def test_a_sweep_says_each_problem_once(capsys):
    assert main(["-m", "seed=0,1,2", "training.lr=-1,1e-3", "method.aplha=3"]) == 1
    assert [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()] == [
        "method.aplha=3",
        "training.lr=-1.0",
    ]


def test_a_sweep_is_refused_under_another_launcher(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert main(["-m", "seed=0,1"]) == 1
    assert "-m: a sweep starts its own processes and cannot run under a launcher" in capsys.readouterr().err


def test_the_configs_of_a_sweep_can_be_printed(capsys):
    assert main(["-m", "model=tiny_roberta", "seed=4,5", "--cfg", "job"]) == 0
    documents = capsys.readouterr().out
    assert "seed: 4" in documents
    assert "seed: 5" in documents


def test_an_interrupt_is_no_traceback(capsys, monkeypatch, tmp_path):
    import tombola_cli.jobs

    def interrupt(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(tombola_cli.jobs, "in_this_process", interrupt)
    assert main(["model=tiny_roberta", f"records.dir={tmp_path}", f"runs.dir={tmp_path}"]) == 130
    assert "interrupted; the same command goes on from the last checkpoint" in capsys.readouterr().err


def test_a_record_that_cannot_be_read_is_one_line(capsys, tmp_path):
    from tombola_cli.jobs import examined, job

    words = ["model=tiny_roberta", f"records.dir={tmp_path}", f"runs.dir={tmp_path}"]
    (tmp_path / f"{job(words, examined(words)[0]).id}.json").write_text("{")
    assert main(words) == 1
    assert "not JSON" in capsys.readouterr().err


def test_an_error_of_a_plan_is_one_line(capsys, monkeypatch):
    import tombola.models

    def refuse(config):
        raise ValueError("cannot be planned")

    monkeypatch.setattr(tombola.models, "plan", refuse)
    assert main(["model=tiny_roberta", "plan=true"]) == 1
    assert capsys.readouterr().err == "error: cannot be planned\n"


def test_a_plan_needs_neither_weights_nor_data_nor_a_loader(capsys):
    assert main(["method=lora", "model=roberta_base", "task=glue/cola", "plan=true"]) == 0
    assert "294,912" in capsys.readouterr().out
