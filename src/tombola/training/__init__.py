"""The `Trainer` that methods see, and what it takes and gives."""

from tombola.training.batches import Row
from tombola.training.plan import Window
from tombola.training.protocol import History, Hook, Interrupted, NonFinite, Trainer
from tombola.training.ranks import Ranks, leave
from tombola.training.rewrite import Rewrite, reindexed
from tombola.training.settings import Settings
from tombola.training.trackers import Log
from tombola.training.trainer import AcceleratedTrainer
from tombola.training.validation import validation_loss

__all__ = [
    "AcceleratedTrainer", "History", "Hook", "Interrupted", "Log", "NonFinite", "Ranks", "Rewrite", "Row",
    "Settings", "Trainer", "Window", "leave", "reindexed", "validation_loss",
]  # fmt: skip
