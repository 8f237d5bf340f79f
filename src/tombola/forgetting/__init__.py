"""Forgetting: lm-eval asks a network its probes. Importing this room imports lm-eval, so runs leave it to a process."""

from tombola.forgetting.compare import compared
from tombola.forgetting.harness import ask_probes, lm_eval_version
from tombola.forgetting.task_files import write_task_files

__all__ = ["ask_probes", "compared", "lm_eval_version", "write_task_files"]
