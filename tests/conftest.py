"""What every test relies on: no network, no progress bars, results kept out of the repository."""

import os
from pathlib import Path

import pytest

# Set before transformers or huggingface_hub are imported: both read it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: more threads than that would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    folder = os.environ.get("TOMBOLA_DATA")
    if not folder:
        pytest.skip("TOMBOLA_DATA is not set: this test reads the published data sets")
    return Path(folder)
