"""`flan/flan20`: FLAN tasks one by one, scored by ROUGE-L (sparse adapters, arXiv 2507.07140; code in microsoft/mttl).

The prompt is the source text as it stands, without special tokens or a chat template; the answer follows after a space
and ends the text. The 20 held-in and 10 held-out tasks of the paper come from sordonia/flan-10k-flat; a folder in
`task.data_dir` has tasks of its own, which its tasks.json lists.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from statistics import mean
from typing import Any

from tombola.tasks.example import AnswersBy, DataError, Example, Generation, TextFormat
from tombola.tasks.flan_rows import Rows, folder_rows, folder_tasks, hub_task_rows
from tombola.tasks.rouge import rouge_l

GROUPS = ("held_in", "held_out", "all")


class Flan:
    """One task, or all of a list as one mixture; each task that is tested has a score of its own."""

    name = "flan/flan20"
    version = 1

    def __init__(
        self,
        *,
        role: str = "decoder",
        held_in: Sequence[str] = (),
        held_out: Sequence[str] = (),
        task_name: str | None = None,
        test_on: str | None = None,
        data_dir: str | None = None,
        url: str | None = None,
        max_new_tokens: int = 64,
        prompt_tokens: int = 2048,
    ) -> None:
        if role != "decoder":
            raise DataError(f"{self.name} is answered by generation: expected a model of role decoder, got {role}")
        self.answers_by: AnswersBy = "generate"
        self.generation = Generation(max_new_tokens)
        self.format = TextFormat(special=False, cut="left", prompt_tokens=prompt_tokens)
        listed = folder_tasks(self.name, data_dir) if data_dir else {"held_in": held_in, "held_out": held_out}
        self._lists = {name: tuple(listed[name]) for name in ("held_in", "held_out")}
        self._lists["all"] = self._lists["held_in"] + self._lists["held_out"]
        trained = self._tasks("task_name", task_name)
        self._tested = self._tasks("test_on", test_on) if test_on else trained
        wanted = tuple(dict.fromkeys(trained + self._tested))
        if data_dir:
            rows: Rows = folder_rows(self.name, data_dir, wanted)
            note = "FLAN tasks of task.data_dir, with its rows: no number of the paper stands beside their scores"
        else:
            rows, note = hub_task_rows(self.name, url, wanted)
        self.data_note: str | None = note
        self._train = [example for name in trained for example in _examples(rows["train"][name])]
        self._validation = [example for name in trained for example in _examples(rows["validation"][name])]
        self._tests = {name: _examples(rows["test"][name]) for name in self._tested}

    def _tasks(self, option: str, name: str | None) -> tuple[str, ...]:
        """The tasks that an option names: one, or those of a list."""
        known = self._lists["all"]
        if name in GROUPS:
            return self._lists[str(name)]
        if name in known:
            return (str(name),)
        if name is None:
            raise DataError(f"{self.name}: type task.{option}=NAME: {', '.join(GROUPS)}, or one of {', '.join(known)}")
        meant = get_close_matches(name, [*GROUPS, *known], n=1)
        near = f"did you mean {meant[0]}?" if meant else f"expected {', '.join(GROUPS)}, or one of {', '.join(known)}"
        raise DataError(f"{self.name}: task.{option}={name}: there is no such task; {near}")

    def train(self) -> Sequence[Example]:
        """The rows of the task, or of all tasks of the list in turn."""
        return self._train

    def validation(self) -> Sequence[Example]:
        """The tasks' own validation rows."""
        return self._validation

    def tests(self) -> dict[str, Sequence[Example]]:
        """The test rows by task."""
        return dict(self._tests)

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """Mean ROUGE-L of the answers."""
        if not examples:
            raise DataError(f"{self.name}: no examples to measure: expected at least one")
        return {"rouge_l": mean(rouge_l(answers, [[str(example.gold)] for example in examples]))}


def _examples(rows: Sequence[tuple[str, str]]) -> list[Example]:
    """The space before the answer belongs to it: the prompt ends where the source does."""
    return [Example(source, f" {target}", target) for source, target in rows]
