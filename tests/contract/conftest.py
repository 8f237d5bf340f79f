"""The matrix: every file of conf/method on every tiny family, with the real trainer and real rows.

Adding a YAML to conf/method adds a row. A test that takes `cell` runs on every method of one family by default and on
the whole matrix with `-m recipe`; one that takes `other_cell` runs by default on the remaining families.
"""

import gc
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import tombola  # noqa: F401  registers the tuners
from tombola.methods import Adapter, Base, FullFinetuning, LoraDash, Method, Milora
from tombola.models import Host, load_host
from tombola.tasks import TextualDigits, encode
from tombola.training import AcceleratedTrainer, Settings
from tombola.training.collate import collate

CONF = Path(__file__).resolve().parents[2] / "conf"
# QLoRA's base is rounded, of which tests/methods/test_qlora.py tells; merging into it would round again. The majority
# trains nothing: tests/methods/test_majority.py.
ELSEWHERE = {"qlora", "majority"}
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml") if path.stem not in ELSEWHERE)
FAMILIES = ("tiny_roberta", "tiny_llama", "tiny_phi3", "tiny_vit")
WHOLE = "tiny_roberta"  # the family of the default suite: it has a head of two layers, and dropout
CLASSES = 10
BATCH = 4
# Every phase of a method within the matrix's four steps, and blocks that divide the narrowest of its layers.
SHORT: dict[str, dict[str, Any]] = {
    "pilora": {"check_every": 2},
    "partial_lora": {"head_steps": 2},
    "rigsa": {"n_prunings": 1},
    "rosa": {"warmup_steps": 2},
    "sparse_adapter": {"mask_update_every": 1, "mask_epochs": 0.5},
    "sparse_block": {"mask_update_every": 1, "mask_epochs": 0.5, "config": {"block": 8}},
    "spiel": {"reselect_every": 2, "accumulate": 1},
    "targeted_lora": {"head_steps": 2},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cells = [(method, family) for family in FAMILIES for method in METHODS]
    if "cell" in metafunc.fixturenames:
        marks = {family: () if family == WHOLE else (pytest.mark.recipe,) for family in FAMILIES}
        params = [pytest.param(cell, marks=marks[cell[1]], id="-".join(cell)) for cell in cells]
        metafunc.parametrize("cell", params, scope="session")
    if "other_cell" in metafunc.fixturenames:
        params = [pytest.param(cell, id="-".join(cell)) for cell in cells if cell[1] != WHOLE]
        metafunc.parametrize("other_cell", params, scope="session")


@dataclass(frozen=True)
class Run:
    """One fitted model and what `save` wrote."""

    method: Method
    model: torch.nn.Module
    saved: Path
    phases: dict[str, int]  # steps of each

    @property
    def is_adapter(self) -> bool:
        """Whether the whole contract holds: the base and the full fine-tuning have no adapter."""
        return not isinstance(self.method, Base | FullFinetuning)

    @property
    def on_residual(self) -> bool:
        """Whether the weights under the adapter are no longer the host's while it trains: PiSSA and MiLoRA."""
        of_adapter = isinstance(self.method, Adapter)
        pissa = of_adapter and getattr(self.method.config, "init_lora_weights", None) == "pissa"
        return isinstance(self.method, Milora) or pissa

    @property
    def rounding(self) -> float:
        """How far what is loaded may be from what was trained: 0 but where it is saved as another kind of adapter."""
        return 1e-5 if self.on_residual or isinstance(self.method, LoraDash) else 0.0

    def hashes(self) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(self.saved.iterdir())}


class StopAfter:
    """A hook that dies after so many steps of a phase, of any phase if None: nothing is saved on the way out."""

    def __init__(self, steps: int, phase: str | None = None) -> None:
        self.steps, self.phase = steps, phase

    def after_step(self, model: torch.nn.Module, optimizer: Any, step: int) -> None:
        if step + 1 == self.steps:
            raise MemoryError("killed")


class HookedTrainer:
    """The real trainer with one more hook."""

    def __init__(self, trainer: AcceleratedTrainer, hook: StopAfter) -> None:
        self.trainer, self.hook = trainer, hook

    def train(self, model: torch.nn.Module, *, phase: str, hooks: Sequence[Any] = (), **options: Any) -> Any:
        more = [self.hook] if self.hook.phase in (None, phase) else []
        return self.trainer.train(model, phase=phase, hooks=[*hooks, *more], **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)


class Found(Exception):
    """Carries the model that a method's first phase of its own would train."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model


class FindingTrainer:
    """The real trainer, but that its first phase does not begin, unless it fits a head only to measure the host."""

    def __init__(self, trainer: AcceleratedTrainer) -> None:
        self.trainer = trainer

    def train(self, model: torch.nn.Module, *, phase: str, **options: Any) -> Any:
        if phase == "head":
            return self.trainer.train(model, phase=phase, **options)
        raise Found(model.eval())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)


@cache
def configuration(method: str, family: str, seed: int) -> dict[str, Any]:
    """The resolved method and model of a run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = [compose(config_name=f"{group}/{name}") for group, name in (("method", method), ("model", family))]
    for group in groups:
        OmegaConf.set_struct(group, False)
    run = {"seed": seed, "training": {"batch_size": BATCH}, "method": SHORT.get(method, {})}
    resolved = OmegaConf.to_container(OmegaConf.merge(*groups, run), resolve=True)
    assert isinstance(resolved, dict)
    return resolved  # type: ignore[return-value]


@cache
def rows_of(family: str) -> list[dict[str, Any]]:
    """Sixteen handwritten digits, as text or as images."""
    host = load(family)
    if host.role != "image_encoder":
        task = TextualDigits(role=host.role)
        return encode(task, task.train()[:16], host.processor, max_length=256)
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [np.repeat((image * 15).astype(np.uint8)[..., None], 3, axis=2) for image in digits.images[:16]]
    pixels = host.processor(images=images, return_tensors="pt")["pixel_values"]
    return [{"pixel_values": p, "label": int(label)} for p, label in zip(pixels, digits.target[:16], strict=True)]


def load(family: str, seed: int = 0) -> Host:
    model = configuration("base", family, seed)["model"]
    kind = "generate" if model["role"] == "decoder" else "classify"
    return load_host(model, kind=kind, labels=CLASSES, seed=seed)


def padding_side(family: str) -> str:
    return "left" if configuration("base", family, 0)["model"]["role"] == "decoder" else "right"


class Matrix:
    """What tests need of a cell; runs are trained when they are first asked for."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self.folders = folders
        self.runs: dict[tuple[str, str], Run] = {}

    def host(self, family: str, seed: int = 0) -> Host:
        """The frozen model as `run.py` gives it to a method."""
        return load(family, seed)

    def run(self, method: str, family: str) -> Run:
        """The cell's run with seed 0, shared by all tests."""
        if (method, family) not in self.runs:
            self.runs[method, family] = self.fit(method, family)
        return self.runs[method, family]

    def fit(
        self, method: str, family: str, *, seed: int = 0, folder: Path | None = None, hook: StopAfter | None = None
    ) -> Run:
        """A run of its own: from the start, or from the newest checkpoint in `folder`."""
        folder = folder or self.folders.mktemp(f"{method}-{family}")
        recipe, trainer = self.method(method, family, seed), self.trainer(family, folder, seed)
        model = recipe.fit(load(family, seed), HookedTrainer(trainer, hook) if hook else trainer)
        recipe.save(model, folder / recipe.saved_in)
        phases = {phase: history.steps for phase, history in trainer.histories.items() if history.steps}
        return Run(recipe, model, folder / recipe.saved_in, phases)

    def untrained(self, method: str, family: str) -> torch.nn.Module:
        """The model as its first phase, but for a host's head, finds it."""
        trainer = FindingTrainer(self.trainer(family, self.folders.mktemp("untrained")))
        try:
            return self.method(method, family).fit(load(family), trainer)
        except Found as found:
            return found.model

    def method(self, method: str, family: str, seed: int = 0) -> Method:
        fields = configuration(method, family, seed)["method"]
        return instantiate({key: value for key, value in fields.items() if key != "name"})

    def trainer(self, family: str, folder: Path, seed: int = 0) -> AcceleratedTrainer:
        """Four steps at a rate that moves every method visibly; a checkpoint in the middle."""
        settings = Settings(lr=5e-3, batch_size=BATCH, max_steps=4, checkpoint_every=2, weight_decay=0.1, seed=seed)
        return AcceleratedTrainer(
            settings=settings, rows=rows_of(family), run_dir=folder, pad_token_id=0, padding_side=padding_side(family)
        )

    def batch(self, family: str) -> dict[str, torch.Tensor]:
        """Four rows as the model takes them, with labels."""
        rows, side = rows_of(family)[:4], padding_side(family)
        batch = collate(rows, pad_token_id=0, padding_side=side, device=torch.device("cpu"))
        return {**batch.inputs, "labels": batch.labels}

    def logits(self, model: torch.nn.Module, family: str) -> torch.Tensor:
        """The model's answers to the batch, in evaluation mode."""
        inputs = {name: value for name, value in self.batch(family).items() if name != "labels"}
        with torch.no_grad():
            return model.eval()(**inputs).logits


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    # accelerate collects garbage after every phase: without the imported libraries' objects that takes a tenth as long.
    gc.collect()
    gc.freeze()
    yield Matrix(tmp_path_factory)
    gc.unfreeze()


@pytest.fixture
def methods() -> list[str]:
    return METHODS


@pytest.fixture
def stop_after() -> type[StopAfter]:
    return StopAfter
