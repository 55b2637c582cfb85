"""Reading the labelled rows of a task and drawing its few-shot splits (section 7)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from supmer import storage
from supmer.corpus.package_docs import TASK_LABELS, task_rows
from supmer.errors import UserError
from supmer.fewshot.task import Columns, HubSource, Task

logger = logging.getLogger(__name__)

SplitName = Literal["train", "test"]


class Row(NamedTuple):
    """One labelled row: its fields, whitespace normalized, and its class index."""

    fields: Mapping[str, str]
    label: int


class TaskRows(NamedTuple):
    """All labelled rows of a task."""

    train: list[Row]
    test: list[Row]


class FewShotSplit(NamedTuple):
    """Indices into `TaskRows.train`: the rows to tune on and those to choose the best step by."""

    train: list[int]
    dev: list[int]


def load_rows(task: Task, data_dir: str | None) -> TaskRows:
    """Read a task's rows from the first of: its own folder, the package documentation, `data_dir`, the hub.

    Rows that are no JSON are counted, reported and skipped; so are rows with an empty field where the task says so.

    Raises:
        UserError: no source, a missing file or column, a label outside the words, or an empty field.
    """
    train, test = (_usable(task, split, *_records(task, split, data_dir)) for split in ("train", "test"))
    return TaskRows(train, test)


def draw_split(task: Task, rows: Sequence[Row], k: int, seed: int) -> FewShotSplit:
    """Draw K rows a class to tune on and K others for dev; the same for every method.

    A class with fewer than 2K rows gives half of them (rounded up) to tuning and the rest to dev.

    Raises:
        UserError: a class has fewer than K rows, or only one.
    """
    generator = np.random.default_rng(seed)
    train: list[int] = []
    dev: list[int] = []
    for label, word in enumerate(task.label_words):
        indices = [index for index, row in enumerate(rows) if row.label == label]
        if len(indices) < max(k, 2):
            raise UserError(
                f"fewshot.k={k}: task {task.name} has only {len(indices)} train rows of class {label} ({word!r})"
            )
        drawn = generator.permutation(indices)
        half = k if len(indices) >= 2 * k else (len(indices) + 1) // 2
        train += drawn[:half].tolist()
        dev += drawn[half : 2 * k].tolist()
    return FewShotSplit(generator.permutation(train).tolist(), dev)


def _records(task: Task, split: SplitName, data_dir: str | None) -> tuple[Columns, str, Iterator[tuple[int, Any]]]:
    """Return how to read the records of a split, where they are (for messages), and the numbered records."""
    folder = task.folder.path
    if folder is None and task.package_docs:
        return _package_docs(task, split)
    if folder is None and data_dir is not None:
        folder = storage.join(data_dir, task.name)
    if folder is not None:
        file = storage.join(folder, getattr(task.folder, split))
        return task.folder, file, _read_jsonl(task, file)
    if task.hub is not None:
        return task.hub, f"hub {task.hub.path} {getattr(task.hub, split)}", enumerate(_read_hub(task, task.hub, split))
    raise UserError(f"task {task.name}: has no data; give folder.path or hub in its file, or set fewshot.data_dir")


def _package_docs(task: Task, split: SplitName) -> tuple[Columns, str, Iterator[tuple[int, Any]]]:
    if task.label_words != list(TASK_LABELS.values()):
        raise UserError(f"task {task.name}: with package_docs, label_words must be {list(TASK_LABELS.values())}")
    return Columns(), f"package docs {split}", enumerate(task_rows(split))


def _read_jsonl(task: Task, file: str) -> Iterator[tuple[int, Any]]:
    if not storage.exists(file):
        raise UserError(f"task {task.name}: no file {file}")
    num_unreadable = 0
    for number, line in enumerate(storage.read_bytes(file).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError:
            num_unreadable += 1
    if num_unreadable:
        logger.warning("task %s: %d lines of %s are not JSON and were skipped", task.name, num_unreadable, file)


def _read_hub(task: Task, source: HubSource, split: SplitName) -> Iterator[dict[str, Any]]:
    import datasets  # slow to import, and needed for hub tasks only

    name = getattr(source, split)
    try:
        data = datasets.load_dataset(source.path, source.config, revision=source.revision, split=name)
    except Exception as error:  # the library raises many kinds; all mean that the data cannot be had
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"task {task.name}: cannot load {source.path} {name} from the hub ({reason}); "
            "set fewshot.data_dir to a folder with its train.jsonl and test.jsonl"
        ) from error
    return _named_classes(task, source, data)


def _named_classes(task: Task, source: HubSource, data: Any) -> Iterator[dict[str, Any]]:
    """Yield records whose label is the data set's own class name, where it has names."""
    names = getattr(data.features.get(source.label), "names", None)
    if names is None:
        yield from data
        return
    if source.classes is None or sorted(map(str, source.classes)) != sorted(names):
        raise UserError(f"task {task.name}: hub.classes={source.classes}: must be the data set's names {names}")
    for record in data:
        label = record[source.label]
        yield {**record, source.label: names[label] if 0 <= label < len(names) else label}


def _usable(task: Task, split: str, source: Columns, origin: str, records: Iterator[tuple[int, Any]]) -> list[Row]:
    reader = _RowReader(task, source)
    rows = []
    num_empty = 0
    for number, record in records:
        row = reader.read(record, f"task {task.name}: {origin} row {number}")
        if all(row.fields.values()):
            rows.append(row)
        elif task.empty_rows == "skip":
            num_empty += 1
        else:
            empty = next(name for name, text in row.fields.items() if not text)
            raise UserError(
                f"task {task.name}: {origin} row {number}: field {empty!r} is empty (`empty_rows: skip` leaves it out)"
            )
    if num_empty:
        logger.warning("task %s: %d rows of %s have an empty field and were skipped", task.name, num_empty, origin)
    if not rows:
        raise UserError(f"task {task.name}: {origin}: has no {split} rows")
    return rows


class _RowReader:
    """Turns records of one source into rows."""

    def __init__(self, task: Task, source: Columns) -> None:
        self.columns = {field: source.columns.get(field, field) for field in task.fields}
        self.label = source.label
        classes = source.classes if source.classes is not None else list(range(len(task.label_words)))
        # With the type in the key, `true` is not taken for 1.
        self.index = {(type(value), value): index for index, value in enumerate(classes)}
        self.allowed = ", ".join(map(str, classes))

    def read(self, record: Any, where: str) -> Row:
        """Return one row, or raise UserError naming the column."""
        if not isinstance(record, dict):
            raise UserError(f"{where}: must be a JSON object")
        for column in (*self.columns.values(), self.label):
            if column not in record:
                raise UserError(f"{where}: no column {column!r}; it has {', '.join(map(str, record))}")
        label = record[self.label]
        index = self.index.get((type(label), label)) if isinstance(label, bool | int | str) else None
        if index is None:
            raise UserError(f"{where}: {self.label}={label}: must be one of {self.allowed}")
        return Row({field: self._text(record[column], column, where) for field, column in self.columns.items()}, index)

    def _text(self, value: Any, column: str, where: str) -> str:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise UserError(f"{where}: {column}={value}: must be text")
        return " ".join(str(value).split())
