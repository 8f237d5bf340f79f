"""The frozen model itself: the row "base" of a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer

HEAD_FILE = "head.safetensors"


@dataclass(frozen=True)
class Base:
    """No adapter. A decoder is left as it is; an encoder's new head, which is random at first, is trained alone."""

    saved_in: ClassVar[str] = "adapter"

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """`host.net` with only its head trained, or untouched when it has none."""
        host.net.requires_grad_(False)
        for name in host.head:
            host.net.get_submodule(name).requires_grad_(True)
        if host.head:
            with without_dropout(host.net):
                trainer.train(host.net, phase="train")
        return host.net

    def save(self, model: nn.Module, folder: Path) -> None:
        """The head's values, by their names in the model; an empty file for a model without a new head."""
        folder.mkdir(parents=True, exist_ok=True)
        head = {name: value for name, value in model.named_parameters() if value.requires_grad}
        save_file({name: value.detach().cpu().contiguous() for name, value in head.items()}, folder / HEAD_FILE)

    def load(self, host: Host, folder: Path) -> nn.Module:
        """`host.net` with the saved head. Raises ValueError when the file is not this host's head."""
        saved = load_file(folder / HEAD_FILE)
        expected = head_parameters(host)
        if {name: value.shape for name, value in saved.items()} != {name: p.shape for name, p in expected.items()}:
            raise ValueError(
                f"{folder / HEAD_FILE} holds {_describe(saved)}, but the head of {host.name} is {_describe(expected)}; "
                "load it with the model and the number of classes that it was trained with."
            )
        host.net.load_state_dict(saved, strict=False)
        return host.net.eval()


@contextmanager
def without_dropout(net: nn.Module) -> Iterator[None]:
    """Inside, dropout lets everything pass: on features that no training can change it would only be noise.

    MiniLM's head on textual_digits: with dropout its loss stayed at chance, without it fell.
    """
    rates = {module: module.p for module in net.modules() if isinstance(module, nn.Dropout)}
    try:
        for module in rates:
            module.p = 0.0
        yield
    finally:
        for module, rate in rates.items():
            module.p = rate


def head_parameters(host: Host) -> dict[str, nn.Parameter]:
    """The parameters of the host's newly initialised modules, by their names in `host.net`."""
    return {
        f"{head}.{name}": parameter
        for head in host.head
        for name, parameter in host.net.get_submodule(head).named_parameters()
    }


def _describe(tensors: dict[str, Tensor] | dict[str, nn.Parameter]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in sorted(tensors.items())) or "no head"
