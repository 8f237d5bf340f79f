"""GLUE's eight tasks (arXiv 1804.07461) as one class; each is told by its YAML in conf/task/glue.

They are reported on the dev set, for the test set's labels are not public. Two papers measure differently:
`glue_standard` is BoLA's (Table 1): Matthews' correlation for CoLA, Pearson's for STS-B, MNLI's two dev sets together,
accuracy elsewhere, without F1. `glue_accuracy` is PiLoRA's (Table 2): accuracy for all, CoLA too, and no STS-B.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tombola.tasks.example import AnswersBy, DataError, Example, Generation, TextFormat
from tombola.tasks.glue_metrics import METRICS
from tombola.tasks.glue_rows import BrokenRows, GlueFiles, LabelledText
from tombola.tasks.sources import locate

STANDARD = {"cola": "matthews", "stsb": "pearson"}  # accuracy for the others
OPTIMISTIC = "validated on the dev set that is reported, as in the papers, which makes a best epoch's score optimistic"


class Glue:
    """Sentences or pairs of them, answered by a head: the class, or for STS-B a score from 0 to 5.

    `local` and `web` say where the rows stand: the columns of `text`, `pair` and `label`, and for `train` and `dev`
    the files with the rows that each must have (a list: any of those numbers, GLUE's own first). Under `local` each
    split is a list of choices: the first whose files are all there is read, and the first of all is GLUE's own.

    `select_on=dev` gives the dev set as validation set too, as the papers do. `train` gives none, so that
    `training.validation_rows` holds training rows out instead. `train_rows` cuts the training set, evenly.
    """

    version = 1
    generation = Generation(max_new_tokens=1)  # nothing is generated
    format = TextFormat()

    def __init__(
        self,
        *,
        subset: str,
        local: Mapping[str, Any],
        web: Mapping[str, Any],
        role: str = "encoder",
        classes: Sequence[str] | None = None,
        score_range: Sequence[float] | None = None,
        data_dir: str | None = None,
        url: str | None = None,
        protocol: Literal["glue_standard", "glue_accuracy"] = "glue_standard",
        select_on: Literal["dev", "train"] = "dev",
        train_rows: int | None = None,
        broken_rows: BrokenRows = "refuse",
        check_rows: bool = True,
    ) -> None:
        self.name = f"glue/{subset}"
        if role != "encoder":
            raise DataError(f"{self.name} is answered by a head: expected a model of role encoder, got {role}")
        self.metric = _metric(subset, protocol)
        self.answers_by: AnswersBy = "regress" if classes is None else "classify"
        self.data_dir, self.url, self.protocol, self.select_on = data_dir, url, protocol, select_on
        self.check_rows = check_rows
        self.layout = web if data_dir is None else local
        self.files = GlueFiles(
            self.name, self.layout["columns"], self.layout.get("header"), classes, score_range, broken_rows
        )
        self._notes: list[str] = []
        train = self._cut(self._read("train"), train_rows)
        self._train, self._dev = _examples(train), _examples(self._read("dev"))
        if select_on == "dev":
            self._notes.append(OPTIMISTIC)
        self.data_note: str | None = "; ".join(self._notes) or None

    def _read(self, split: str) -> list[LabelledText]:
        own, chosen = self._choices(split)
        if split == "dev" and self.protocol == "glue_accuracy":  # of MNLI's two, the matched one
            own, chosen = dict([*own.items()][:1]), dict([*chosen.items()][:1])
        rows = []
        for file, expected in chosen.items():
            found, left_out = self.files.read(locate(self.name, file, data_dir=self.data_dir, url=self.url))
            if left_out:
                self._notes.append(f"{file}: {left_out:,} rows without a label or of too few columns left out")
            self._check(file, len(found), expected)
            rows += found
        wanted = sum(_counts(expected)[0] for expected in own.values())
        if len(rows) != wanted:
            what = f"{' and '.join(chosen)}, a slice" if chosen != own else "a copy"
            self._notes.append(f"{split} is {what} of {len(rows):,} rows, not GLUE's own of {wanted:,}")
        return rows

    def _choices(self, split: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """GLUE's own files of the split, and those to read, with their numbers of rows."""
        if self.data_dir is None:
            return self.layout[split], self.layout[split]
        choices = self.layout[split]
        folder = Path(self.data_dir).expanduser()
        for files in choices:
            if all((folder / file).is_file() for file in files):
                return choices[0], files
        listed = ", or ".join(" and ".join(files) for files in choices)
        raise DataError(f"{self.name}: {folder} has no {listed}; task.data_dir names the folder of GLUE's folders")

    def _check(self, file: str, found: int, expected: int | Sequence[int]) -> None:
        if self.check_rows and found not in _counts(expected):
            allowed = " or ".join(f"{count:,}" for count in _counts(expected))
            raise DataError(
                f"{self.name}: {file} ends after row {found - 1}; expected {allowed} rows, not {found:,}: it is torn "
                "or another split (task.check_rows=false reads it all the same)"
            )

    def _cut(self, rows: list[LabelledText], most: int | None) -> list[LabelledText]:
        if most is None or most >= len(rows):
            return rows
        if most < 1:
            raise DataError(f"task.train_rows={most}: expected a whole number of at least 1, or null")
        self._notes.append(f"trained on {most:,} of {len(rows):,} training rows, evenly spaced")
        return [rows[number * len(rows) // most] for number in range(most)]

    def train(self) -> Sequence[Example]:
        """The training set, cut to `train_rows`."""
        return self._train

    def validation(self) -> Sequence[Example]:
        """The dev set, or nothing if epochs are to be chosen on training rows."""
        return self._dev if self.select_on == "dev" else []

    def tests(self) -> dict[str, Sequence[Example]]:
        """The dev set, as `validation`."""
        return {"validation": self._dev}

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """The protocol's one metric."""
        if not examples:
            raise DataError(f"{self.name}: no examples to measure: expected at least one")
        gold: list[Any] = [example.gold for example, _ in zip(examples, answers, strict=True)]
        return {self.metric: METRICS[self.metric](gold, answers)}


def _metric(subset: str, protocol: str) -> str:
    if protocol not in ("glue_standard", "glue_accuracy"):
        raise DataError(f"task.protocol={protocol}: expected glue_standard or glue_accuracy")
    if protocol == "glue_standard":
        return STANDARD.get(subset, "accuracy")
    if subset == "stsb":
        raise DataError("task.protocol=glue_accuracy: STS-B has scores and no classes, and PiLoRA leaves it out")
    return "accuracy"


def _counts(expected: int | Sequence[int]) -> list[int]:
    return [expected] if isinstance(expected, int) else list(expected)


def _examples(rows: Sequence[LabelledText]) -> list[Example]:
    return [Example(row.text, row.label, row.label, pair=row.pair) for row in rows]
