import json
import signal
import time

from tombola_cli.parent import EX_TEMPFAIL


def test_a_sweep_survives_a_failing_job_and_then_runs_what_is_missing(typed, tmp_path):
    status, output, errors = typed("-m", "seed=0,1,4", "training.lr=1e-3")
    (failed,) = (tmp_path / "runs").glob("*-s1-*")
    assert (status, errors) == (1, "")
    assert output.count(": ok") == 2
    assert f"[2/3] {failed.name}: failed (exit status 1)" in output
    assert "1 of 3 jobs failed; the same command runs only what is missing:" in output
    command = "python train.py model=tiny_roberta runs.dir=runs records.dir=records seed=1 training.lr=1e-3"
    assert output.splitlines()[-1] == f"  {command}   log: runs/{failed.name}/run.log"
    log = (failed / "run.log").read_text()
    assert log == "rank - runs seed 1\nerror: this one fails\n"
    assert log in output  # shown live as well

    status, output, errors = typed("-m", "seed=0,1,4", "training.lr=1e-3")
    assert status == 1
    assert output.count(": finished before, skipped") == 2
    assert "runs seed 0" not in output
    assert "runs seed 1" in output


def test_no_job_starts_before_all_are_checked(typed, tmp_path):
    status, output, errors = typed("-m", "seed=0,4", "method.config.in_divs=8,7")
    assert (status, output) == (1, "")
    assert "in_divs=7, out_divs=8: this grid does not divide" in errors
    assert not (tmp_path / "runs").exists()


def test_each_job_has_its_own_words(typed, tmp_path):
    assert typed("-m", "seed=range(4,6)")[0] == 0
    configs = [json.loads(path.read_text()) for path in sorted((tmp_path / "runs").glob("*/config.json"))]
    assert sorted(config["command"][-1] for config in configs) == ["seed=4", "seed=5"]


def test_sigterm_stops_the_sweep_after_the_running_job_has_saved(start, tmp_path):
    process = start("-m", "seed=2,5")
    for _ in range(1200):
        if list((tmp_path / "runs").glob("*/waiting-0")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (EX_TEMPFAIL, "")
    assert "interrupted" in output
    assert "stopped after 1 of 2 jobs; the same command goes on from here" in output
    assert not list((tmp_path / "runs").glob("*-s5-*/config.json"))
