"""`vision/*`: images to classify, by top-1 accuracy: the seven data sets of PiLoRA's table 3, CIFAR-10, Flowers 102.

From the hub's parquet files, or from IDX files in `task.data_dir` (see `tombola.tasks.idx`): PART-images-idx4-ubyte.gz,
N x height x width x RGB, PART-labels-idx1-ubyte.gz and CLASSES.json, a list of names that need not be there.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from tombola.tasks.example import AnswersBy, DataError, Example, Generation, TextFormat
from tombola.tasks.grids import accuracy
from tombola.tasks.idx import read_idx
from tombola.tasks.parquet import hub_rows
from tombola.tasks.sources import locate, read_json
from tombola.tasks.views import Picture


class Images:
    """A data set of images, each of one of `classes`.

    `crop_scale` is the share of an image that a training view shows, drawn anew each time; null: always all of it.
    """

    version = 1
    generation = Generation(max_new_tokens=0)
    format = TextFormat()

    def __init__(
        self,
        *,
        data_set: str,
        classes: int,
        stem: str,
        role: str = "image_encoder",
        folder: str = "data",
        image_field: str = "image",
        validation: bool = False,
        crop_scale: Sequence[float] | None = (0.9, 1.0),
        data_dir: str | None = None,
        url: str | None = None,
    ) -> None:
        self.name = f"vision/{data_set}"
        if role != "image_encoder":
            raise DataError(f"{self.name} is of images: expected a model of role image_encoder, got {role}")
        if crop_scale is not None and not (len(crop_scale) == 2 and 0 < crop_scale[0] <= crop_scale[1] <= 1):
            raise DataError(f"{self.name}: task.crop_scale={list(crop_scale)}; expected two shares in (0, 1], or null")
        self.answers_by: AnswersBy = "classify"
        self.classes, self.stem, self.folder, self.image_field = classes, stem, folder, image_field
        self.data_dir, self.url = data_dir, url
        self.crop_scale = None if crop_scale is None else (crop_scale[0], crop_scale[1])
        if data_dir:
            self._check_names()
        read = self._local if data_dir else self._of_hub
        self._parts = {part: read(part) for part in ("train", "test", *(["validation"] if validation else []))}
        counts = ", ".join(f"{len(examples)} {part}" for part, examples in self._parts.items())
        self.data_note = f"images of task.data_dir: {counts}" if data_dir else None

    def train(self) -> Sequence[Example]:
        """The training images."""
        return self._parts["train"]

    def validation(self) -> Sequence[Example]:
        """The data set's own, where it has some; else `training.validation_rows` are cut from the training images."""
        return self._parts.get("validation", [])

    def tests(self) -> dict[str, Sequence[Example]]:
        """The test images."""
        return {"test": self._parts["test"]}

    def measure(self, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
        """Top-1 accuracy."""
        return accuracy(examples, answers)

    def _local(self, part: str) -> list[Example]:
        arrays = []
        for file, dimensions in ((f"{part}-images-idx4-ubyte.gz", 4), (f"{part}-labels-idx1-ubyte.gz", 1)):
            path = locate(self.name, f"{self.stem}-{file}", data_dir=self.data_dir, url=None)
            arrays.append((path, read_idx(self.name, path, dimensions)))
        (where, images), (labels_file, labels) = arrays
        if images.shape[-1] != 3:
            raise DataError(f"{self.name}: {where} has {images.shape[-1]} channels; expected 3, RGB")
        if len(images) != len(labels):
            raise DataError(f"{self.name}: {where} has {len(images)} images, but {labels_file} {len(labels)} labels")
        return self._examples(
            [partial(images.__getitem__, row) for row in range(len(images))], labels, str(labels_file)
        )

    def _of_hub(self, part: str) -> list[Example]:
        if self.url is None:
            raise DataError(f"{self.name}: no pinned source: type task.data_dir=DIR, a folder with {self.stem}-* files")
        pattern = f"{self.folder}/{part}-*.parquet"
        table, _ = hub_rows(self.name, self.url, pattern, columns=[self.image_field, "label"])
        names = getattr(table.features["label"], "names", None)
        if names is not None and len(names) != self.classes:
            raise DataError(self._other_classes(f"{self.url} {pattern}", len(names)))
        decode = [partial(_decoded, self.name, table, row, self.image_field) for row in range(len(table))]
        return self._examples(decode, table["label"], f"{self.url} {pattern}")

    def _examples(self, decode: Sequence[Any], labels: Any, where: str) -> list[Example]:
        examples = []
        for number, (image, label) in enumerate(zip(decode, labels, strict=True)):
            if not 0 <= label < self.classes:
                raise DataError(
                    f"{self.name}: {where} row {number} has label {label}; expected 0 to {self.classes - 1}, or type "
                    f"task.labels=N for the number of classes that are there"
                )
            examples.append(Example("", int(label), int(label), image=Picture(image, self.crop_scale)))
        return examples

    def _check_names(self) -> None:
        path = Path(str(self.data_dir)).expanduser() / f"{self.stem}-classes.json"
        if not path.is_file():
            return
        names = read_json(self.name, path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{self.name}: {path} is no list of texts; expected the names of the classes")
        if len(names) != self.classes:
            raise DataError(self._other_classes(str(path), len(names)))

    def _other_classes(self, where: str, found: int) -> str:
        return f"{self.name}: {where} has {found} classes, and task.labels is {self.classes}: type task.labels={found}"


def _decoded(task: str, table: Any, row: int, field: str) -> UInt8[ndarray, "height width 3"]:
    try:
        return np.asarray(table[row][field].convert("RGB"))
    except Exception as error:  # PIL's errors for torn images have no common class
        raise DataError(f"{task}: row {row} of the {table.split} images cannot be decoded ({error})") from error
