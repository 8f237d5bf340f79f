"""Tasks: one file each, with its examples, its prompt and its scorer."""

from tombola.tasks.digits import TextualDigits
from tombola.tasks.encoding import encode, prompt_ids, prompt_text, uses_chat
from tombola.tasks.example import DataError, Example, Generation, Row, Shot, Task, TextFormat
from tombola.tasks.load import load_task
from tombola.tasks.math import Math
from tombola.tasks.textual_mnist import TextualMnist

__all__ = [
    "DataError",
    "Example",
    "Generation",
    "Math",
    "Row",
    "Shot",
    "Task",
    "TextFormat",
    "TextualDigits",
    "TextualMnist",
    "encode",
    "load_task",
    "prompt_ids",
    "prompt_text",
    "uses_chat",
]
