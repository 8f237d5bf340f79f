import pytest

from tombola_cli.config.nearest import did_you_mean, nearest

FIELDS = ["seed", "method", "task", "task.name", "training.lr", "training.weight_decay", "training.batch_size"]
FIELDS += ["method.config.alpha", "method.config.k", "method.config.target_modules", "launch.nproc", "records.dir"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("method.aplha", "method.config.alpha"),  # in the whole tree, not only beside it
        ("lr", "training.lr"),
        ("training.learning_rate", "training.lr"),  # by its initials
        ("training.wd", "training.weight_decay"),
        ("training.bacth_size", "training.batch_size"),
        ("method.target_modules", "method.config.target_modules"),
        ("tsak", "task"),
        ("nprocs", "launch.nproc"),
    ],
)
def test_the_name_that_was_meant(typed, meant):
    assert nearest(typed, FIELDS) == meant


@pytest.mark.parametrize(("typed", "meant"), [("cola", "glue/cola"), ("maths", "math"), ("GLUE/cola", "glue/cola")])
def test_choices_in_folders(typed, meant):
    assert nearest(typed, ["glue/cola", "glue/rte", "math", "vision/cars"]) == meant


def test_no_suggestion_is_better_than_a_wild_one():
    assert nearest("zzzz", FIELDS) is None
    assert did_you_mean("zzzz", ["b", "a"]) == "there are a, b"


def test_a_shared_first_part_decides_between_equals():
    assert nearest("task.dir", ["runs.dir", "task.dirs", "records.dir"]) == "task.dirs"
