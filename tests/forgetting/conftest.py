"""A tiny decoder, small probes, and lm-eval by itself on the same rows."""

from pathlib import Path
from typing import Any

import pytest
from tests.forgetting.probe_files import probe_folder

from tombola.models import Host, load_host
from tombola.tasks import Probes
from tombola_cli.config.compose import compose


@pytest.fixture(scope="session")
def llama() -> Host:
    return load_host(compose(["model=tiny_llama"])["model"], kind="probe", labels=0, seed=0)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probe_folder(tmp_path_factory.mktemp("lm_eval"))


@pytest.fixture
def probes(data_dir: Path) -> Any:
    def make(**settings: Any) -> Probes:
        return Probes(**{"data_dir": str(data_dir), "shots": {"gsm8k": 2}, "batch_size": 3, **settings})

    return make
