"""What a column holds, as text: columns by path, lists of sentences, bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Row = tuple[int, int, dict[Any, Any]]
"""Number of a row in its file from 0; the line it begins at (of a Parquet or Arrow file: the row) from 1; its columns."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a letter that needs two in UTF-16, as cut emoji leave it: no encoding has it."""

INVALID = b"\xff"
"""Stands for a value that cannot be decoded."""


def column_of(values: Mapping[Any, Any], column: str) -> Any:
    """Return the value of a column, which may be a path of names and places: ``meta.text``, ``options.0``; None if none.

    >>> column_of({"meta": {"text": "a"}}, "meta.text"), column_of({"meta.text": "b"}, "meta.text")
    ('a', 'b')
    >>> column_of({"options": ["a", "b"]}, "options.1")
    'b'
    """
    if column in values or "." not in column:
        return values.get(column)
    first, rest = column.split(".", 1)
    inner = values.get(first)
    if isinstance(inner, list | tuple):
        inner = {str(place): value for place, value in enumerate(inner)}
    return column_of(inner, rest) if isinstance(inner, Mapping) else None


def text_of(value: Any) -> str | None:
    """Return a value as text: strings as they are, lists of strings joined by line ends; None for anything else.

    >>> text_of(["One.", None, "Two."]), text_of(3)
    ('One.\\nTwo.', None)
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value:
        parts = [part for part in value if part is not None]
        return "\n".join(parts) if all(isinstance(part, str) for part in parts) else None
    return None


def without_surrogates(value: Any) -> Any:
    """Return a JSON value with U+FFFD in place of half letters, in keys and strings at any depth."""
    if isinstance(value, str):
        return SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value


def decoded(value: Any, encoding: str | None) -> Any:
    """Return a value with bytes decoded (default: UTF-8), also within a list; INVALID where one cannot be."""
    try:
        if isinstance(value, bytes):
            return value.decode(encoding or "utf-8")
        if isinstance(value, list):
            return [item.decode(encoding or "utf-8") if isinstance(item, bytes) else item for item in value]
    except UnicodeDecodeError:
        return INVALID
    return value
