"""Tasks: one file each, with its examples, its prompt and its scorer."""

from tombola.tasks.commonsense import Commonsense
from tombola.tasks.digits import TextualDigits
from tombola.tasks.encoding import adds_special, encode, prompt_ids, prompt_text, uses_chat
from tombola.tasks.example import DataError, Example, Generation, Row, Shot, Task, TextFormat
from tombola.tasks.flan import Flan
from tombola.tasks.glue import Glue
from tombola.tasks.images import Images
from tombola.tasks.load import load_task
from tombola.tasks.math import Math
from tombola.tasks.probes import Probes
from tombola.tasks.textual_mnist import TextualMnist
from tombola.tasks.tokenised import tokenised
from tombola.tasks.views import Picture

__all__ = [
    "Commonsense",
    "DataError",
    "Example",
    "Flan",
    "Generation",
    "Glue",
    "Images",
    "Math",
    "Picture",
    "Probes",
    "Row",
    "Shot",
    "Task",
    "TextFormat",
    "TextualDigits",
    "TextualMnist",
    "adds_special",
    "encode",
    "load_task",
    "prompt_ids",
    "prompt_text",
    "tokenised",
    "uses_chat",
]
