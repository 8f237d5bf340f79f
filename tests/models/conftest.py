"""The model files as plain dicts, and a cache that is not the user's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

ModelOf = Callable[..., dict[str, Any]]


def read(file: Path) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(file), resolve=True, throw_on_missing=True)


@pytest.fixture(scope="session")
def model_of(repository: Path) -> ModelOf:
    """`model_of("tiny_llama", dtype="bfloat16")`: that file of conf/model with fields replaced."""

    def model(name: str, **fields: Any) -> dict[str, Any]:
        return {**read(repository / "conf" / "model" / f"{name}.yaml"), **fields}

    return model


@pytest.fixture(scope="session")
def training(repository: Path) -> dict[str, Any]:
    return read(repository / "conf" / "training" / "paper.yaml")


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of converted models for the session: 90 MB and more are not written twice."""
    return tmp_path_factory.mktemp("tombola-cache")


@pytest.fixture
def cache(converted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOMBOLA_CACHE", str(converted))
    return converted
