"""What run.py asks of a method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import nn

if TYPE_CHECKING:
    from tombola.models import Host
    from tombola.training import Trainer


class Method(Protocol):
    """A recipe: it turns a frozen host into a trained model, and that into a folder which others can load.

    A method holds its settings and nothing else, so that one object can fit many hosts, and so that a run that was cut
    off is continued by calling `fit` again: a phase of the trainer that has finished returns at once.
    """

    saved_in: ClassVar[str]  # name of the run's sub-folder that `save` writes: "adapter" or "checkpoint"

    def fit(self, host: Host, trainer: Trainer) -> nn.Module:
        """The trained model; `host.net` is changed in place and must not be used for another run."""
        ...

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what users load, in safetensors; the same values give the same bytes."""
        ...

    def load(self, host: Host, folder: Path) -> nn.Module:
        """The saved model on a fresh host, in evaluation mode, read in the way a user would read it."""
        ...
