"""Tiny random models with their byte tokenizers, and a task to ask them."""

from types import SimpleNamespace

import pytest

from tombola.models import load_host
from tombola.tasks import Generation, TextFormat
from tombola_cli.config.compose import compose

KINDS = {"tiny_llama": "generate", "tiny_phi3": "generate", "tiny_roberta": "classify", "tiny_vit": "classify"}


def load(name, kind=None, labels=3):
    model = compose([f"model={name}"])["model"]
    return load_host(model, kind=kind or KINDS[name], labels=labels, seed=0)


@pytest.fixture(scope="module")
def llama():
    return load("tiny_llama")


@pytest.fixture(scope="module")
def phi3():
    return load("tiny_phi3")


@pytest.fixture(scope="module")
def roberta():
    return load("tiny_roberta")


@pytest.fixture(scope="module")
def vit():
    return load("tiny_vit")


@pytest.fixture
def make_task():
    def make(answers_by, **options):
        fields = {"name": "t", "version": 1, "generation": Generation(8), "format": TextFormat()}
        return SimpleNamespace(answers_by=answers_by, **{**fields, **options})

    return make
