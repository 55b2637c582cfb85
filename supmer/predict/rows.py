"""What a user gives as a row: the task's fields by name, and perhaps the class that is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supmer.errors import UserError
from supmer.fewshot.data import Row
from supmer.fewshot.task import Task, label_text
from supmer.readers.values import column_of

UNKNOWN_CLASS = 0
"""Class of a row whose class is asked for; scoring does not look at it."""


class UnusableRowError(UserError):
    """A row that cannot be labelled because of one of its fields."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"field {field!r} {reason}")
        self.field = field


def read_row(task: Task, record: Mapping[str, Any]) -> Row:
    """Return the fields of a record, whitespace normalized as in tuning.

    A field is the column of its name, or else the one that the task file names for it.

    Raises:
        UnusableRowError: a field is missing, no text, empty, or holds half a letter.

    >>> from supmer.fewshot.task import load_task
    >>> read_row(load_task("cr"), {"text": " Works  well. "}).fields
    {'text': 'Works well.'}
    """
    fields = {}
    for name in task.fields:
        named = [source.columns[name] for source in (task.folder, task.hub) if source and name in source.columns]
        # A column may be a path of names.
        found = [column for column in (name, *named) if column in record or column_of(record, column) is not None]
        if not found:
            raise UnusableRowError(name, "is missing")
        value = column_of(record, found[0])
        if not isinstance(value, str):
            raise UnusableRowError(name, f"must be text, not {type(value).__name__}")
        fields[name] = " ".join(value.split())
        if not fields[name]:
            raise UnusableRowError(name, "is empty")
        if any("\ud800" <= letter <= "\udfff" for letter in fields[name]):
            raise UnusableRowError(name, "holds half a letter (a lone surrogate)")
    return Row(fields, UNKNOWN_CLASS)


def read_class(task: Task, record: Mapping[str, Any]) -> int | None:
    """Return the class that a record gives in the task's label column: by its value there, or by its word."""
    for source in filter(None, (task.folder, task.hub)):
        value = column_of(record, source.label)
        classes = source.classes if source.classes is not None else [str(i) for i in range(len(task.label_words))]
        for names in (classes, task.label_words):
            if isinstance(value, bool | int | float | str) and label_text(value) in names:
                return names.index(str(label_text(value)))
    return None
