"""Reading the labelled rows of a task and drawing its few-shot splits (section 7)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from supmer.config.fewshot import RowCount
from supmer.errors import UserError, setting_error
from supmer.fewshot.sources import Source, SplitName, find_source
from supmer.fewshot.task import Task, label_text
from supmer.readers.skipped import SKIP_REASONS
from supmer.readers.values import column_of

logger = logging.getLogger(__name__)

SPLITS: tuple[SplitName, ...] = ("train", "test")

MAX_BROKEN = 0.1
"""Share of a split's rows that may be unreadable: results on what is left of more would be of another task."""

MAX_DEV = 256
"""Rows of a class that choose the best step, at most, where all rows are tuned on."""


class Row(NamedTuple):
    """One labelled row: its fields, whitespace normalized, and its class index."""

    fields: Mapping[str, str]
    label: int


class TaskRows(NamedTuple):
    """All labelled rows of a task, and how many of each split were skipped: broken ones, or with an empty field."""

    train: list[Row]
    test: list[Row]
    num_skipped_train: int = 0
    num_skipped_test: int = 0


class FewShotSplit(NamedTuple):
    """Indices into `TaskRows.train`: the rows to tune on and those to choose the best step by."""

    train: list[int]
    dev: list[int]


def load_rows(task: Task, data_dir: str | None) -> TaskRows:
    """Read a task's rows from the first of: its own folder, the package documentation, `data_dir`, the hub.

    Rows that cannot be read are counted, reported and skipped; so are rows with an empty field where the task says so.

    Raises:
        UserError: no source, a missing file or column, a label outside the words, an empty field, or more than MAX_BROKEN of
            the rows cannot be read.
    """
    (train, skipped_train), (test, skipped_test) = (
        _usable(task, split, find_source(task, split, data_dir)) for split in SPLITS
    )
    return TaskRows(train, test, skipped_train, skipped_test)


def by_size(k: RowCount) -> float:
    """Return what numbers of rows are sorted by: `all` are the most."""
    return math.inf if k == "all" else k


def draw_split(task: Task, rows: Sequence[Row], k: RowCount, seed: int) -> FewShotSplit:
    """Draw K rows a class to tune on and K others for dev; the same for every method.

    A class with fewer than 2K rows gives half of them (rounded up) to tuning and the rest to dev. Of `all` rows, a tenth of
    each class and at most MAX_DEV are for dev.

    Raises:
        UserError: a class has fewer than K rows, or only one.
    """
    generator = np.random.default_rng(seed)
    train: list[int] = []
    dev: list[int] = []
    for label, word in enumerate(task.label_words):
        indices = [index for index, row in enumerate(rows) if row.label == label]
        if len(indices) < (2 if k == "all" else max(k, 2)):
            few = f"task {task.name} has only {len(indices)} train rows of class {label} ({word!r})"
            raise setting_error("fewshot.k", k, few)
        drawn = generator.permutation(indices)
        if k == "all":
            end, half = len(indices), len(indices) - min(MAX_DEV, max(1, len(indices) // 10))
        else:
            end, half = 2 * k, k if len(indices) >= 2 * k else (len(indices) + 1) // 2
        train += drawn[:half].tolist()
        dev += drawn[half:end].tolist()
    return FewShotSplit(generator.permutation(train).tolist(), dev)


def class_weights(task: Task, labels: Sequence[int]) -> list[float] | None:
    """Return the weight of each class in the loss, by `task.label_weights`; None where there are none.

    `labels` are the classes of the rows to tune on, each at least once. Their weights are 1 on average.

    >>> from supmer.fewshot.task import load_task
    >>> class_weights(load_task("sst-2").model_copy(update={"label_weights": "balanced"}), [0, 0, 0, 1])
    [0.666..., 2.0]
    """
    if task.label_weights is None:
        return None
    counts = np.bincount(labels, minlength=len(task.label_words))
    if task.label_weights == "balanced":
        weights = 1 / counts
    else:
        weights = np.array([task.label_weights.get(word, 1.0) for word in task.label_words])
    found: list[float] = (weights * len(labels) / (weights @ counts)).tolist()
    return found


def _usable(task: Task, split: SplitName, source: Source) -> tuple[list[Row], int]:
    """Return the rows of a split, and the number of those that were skipped."""
    columns = {field: source.columns.columns.get(field, field) for field in task.fields}
    classes = source.columns.classes if source.columns.classes is not None else range(len(task.label_words))
    index = {label_text(value): index for index, value in enumerate(classes)}
    rows = []
    num_empty = 0
    for where, record in source.records:
        row = _row(record, columns, source.columns.label, index, f"task {task.name}: {where}")
        if all(row.fields.values()):
            rows.append(row)
        elif task.empty_rows == "skip":
            num_empty += 1
        else:
            empty = next(name for name, text in row.fields.items() if not text)
            raise UserError(f"task {task.name}: {where}: field {empty!r} is empty (`empty_rows: skip` leaves it out)")
    if num_empty:
        logger.warning("task %s: %d rows of %s have an empty field and were skipped", task.name, num_empty, source.origin)
    for line in source.skipped.describe_files():
        logger.info("task %s: %s", task.name, line)
    num_broken = _num_broken(task, source, len(rows) + num_empty)
    if not rows:
        raise UserError(f"task {task.name}: {source.origin}: has no {split} rows")
    return rows, num_empty + num_broken


def _num_broken(task: Task, source: Source, num_read: int) -> int:
    """Return how many rows could not be read, and log which; more than MAX_BROKEN of all are an error."""
    broken = {reason: source.skipped[reason] for reason in SKIP_REASONS if source.skipped[reason]}
    reasons = "; ".join(
        f"{count} {SKIP_REASONS[reason]}, at {', '.join(source.skipped.places[reason])}" for reason, count in broken.items()
    )
    num_broken = sum(broken.values())
    if num_broken > MAX_BROKEN * (num_broken + num_read):
        hint = "; folder.encoding names another encoding" if "invalid_utf8" in broken else ""
        counted = f"{num_broken} of {num_broken + num_read} rows cannot be read, must be at most {MAX_BROKEN:.0%}"
        raise UserError(f"task {task.name}: {source.origin}: {counted} ({reasons}{hint})")
    if broken:
        logger.warning("task %s: %d rows of %s were skipped: %s", task.name, num_broken, source.origin, reasons)
    if count := source.skipped["replaced_letters"]:
        logger.warning("task %s: %d rows of %s hold half a letter, which was replaced", task.name, count, source.origin)
    return num_broken


def _row(record: Any, columns: Mapping[str, str], label_column: str, index: Mapping[object, int], where: str) -> Row:
    """Return the row of a record, by the columns of fields and the index of classes; UserError names what is wrong."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be a JSON object")
    for column in (*columns.values(), label_column):
        if column not in record and column_of(record, column) is None:
            raise UserError(f"{where}: no column {column!r}; it has {', '.join(map(str, record))}")
    label = column_of(record, label_column)
    if not isinstance(label, bool | int | float | str) or label_text(label) not in index:
        raise UserError(f"{where}: {label_column}={label!r}: must be one of {', '.join(map(repr, index))}")
    fields = {}
    for field, column in columns.items():
        value = column_of(record, column)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):  # as pandas writes missing values
            value = ""
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise UserError(f"{where}: {column}={value}: must be text")
        fields[field] = " ".join(str(value).split())
    return Row(fields, index[label_text(label)])
