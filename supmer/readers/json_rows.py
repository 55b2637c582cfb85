"""Objects of JSON files: one a line, an array of them, or a list of them within one object (``{"data": [...]}``)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from supmer.readers import skipped as limits
from supmer.readers.skipped import Skipped
from supmer.readers.streams import ESCAPED, Lines
from supmer.readers.values import SURROGATE, Row, column_of, without_surrogates

logger = logging.getLogger(__name__)

SPACE = re.compile(r"[\s,]*")
NEXT_OBJECT = re.compile(r"\n\s*(?=\{)")
ENDED_TOO_EARLY = 12
"""An error so near to the end of what was read may be one because more is to come."""

GROWTH = 1 << 20
"""Characters read at least before an object that is not complete is tried again."""


def json_rows(lines: Lines, columns: Sequence[str], skipped: Skipped) -> Iterator[Row]:
    """Yield the objects of a JSON file; what is none is counted.

    `columns` are those that will be asked for (none: any). They tell an object that is a row from one that holds the rows,
    and of these no object may have two.
    """
    name, live = lines.file.name, iter(lines)
    head, is_in_parts = _read_head(lines, live)
    numbered = chain(head, ((lines.number, lines.is_valid, line) for line in live))
    firsts = [line for _, _, line in head if not line.isspace()]
    if is_in_parts and not firsts[0].lstrip().startswith("["):
        skipped.add("too_long", name, lines.number)
        logger.warning(
            "%s: line %d is no array and has more than %d MiB: write its rows as an array, or as one object a line",
            *(lines.file.path, lines.number, limits.MAX_ROW_BYTES >> 20),
        )
        next((line for _, _, line in islice(numbered, len(head) - 1, None) if line.endswith("\n")), None)
    elif firsts and _is_document(firsts, columns):
        place = 0
        for number, element in _elements(numbered, name, skipped):
            inner = [] if _has_any(element, columns) else _lists_within(element, columns)
            for values in _columns_of(element) or (inner[0] if inner else [element]):
                yield place, number, values
                place += 1
        return

    keys = [f'"{column.rpartition(".")[2]}"' for column in columns]
    decode = json.JSONDecoder().raw_decode
    for number, is_valid, line in numbered:
        try:
            values, end = decode(line)
            if (rest := line[end:]) != "\n" and rest.strip():
                raise ValueError("more than one value")
        except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError too
            if line.isspace():
                continue
            values = _parsed(line)  # takes white space at the start
        if not is_valid:
            skipped.add("invalid_utf8", name, number)
            continue
        if isinstance(values, dict) and any(line.count(key) > 1 for key in keys):
            values = _parsed(line, _without_repetition)
        if not isinstance(values, dict):
            skipped.add("invalid_json", name, number)
            continue
        if "\\ud" in line or "\\uD" in line:
            values = _mended(values, skipped, name, number)
        yield number - 1, number, values


def _read_head(lines: Lines, live: Iterator[str]) -> tuple[list[tuple[int, bool, str]], bool]:
    """Return the lines up to the second that is not empty (number, validity, text), and whether the first came in parts."""
    head: list[tuple[int, bool, str]] = []
    num_texts, lines.in_parts = 0, True
    while num_texts < 2 and (line := next(live, None)):
        head.append((lines.number, lines.is_valid, line))
        num_texts += not line.isspace()
        lines.in_parts = not num_texts  # only the first line may be a whole file of rows
    first = next((line for _, _, line in head if not line.isspace()), "")
    return head, num_texts == 2 and not first.endswith("\n")


def _is_document(firsts: list[str], columns: Sequence[str]) -> bool:
    """Return whether a file, of which these are the first lines that are not empty, is one JSON value of many lines."""
    values = _parsed(firsts[0])
    if isinstance(values, dict):
        return len(firsts) == 1 and bool(
            _columns_of(values) or (not _has_any(values, columns) and _lists_within(values, columns))
        )
    if isinstance(values, list):
        return bool(values) and all(isinstance(item, dict) for item in values)
    first = firsts[0].lstrip()
    if first.startswith("["):
        return first.strip() == "[" or first[1:].lstrip().startswith("{")
    return first.startswith("{") and len(firsts) == 2 and not isinstance(_parsed(firsts[1]), dict)


def _elements(source: Iterable[tuple[int, bool, str]], name: str, skipped: Skipped) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Yield (line, object) of an array's objects, or of objects after each other; read piece by piece.

    After an object that is broken the next one that begins a line is taken.
    """
    decoder = json.JSONDecoder()
    iterator = iter(source)
    text, at, line = "", 0, 1

    def more() -> bool:
        """Read on, dropping what was used; return whether there was more."""
        nonlocal text, at
        wanted = max(GROWTH, len(text) - at)
        parts = [text[at:]]
        while wanted > 0 and (item := next(iterator, None)):
            parts.append(item[2])
            wanted -= len(item[2])
        has_grown = len(parts) > 1
        text, at = "".join(parts), 0
        return has_grown

    more()
    at = len(text) - len(text.lstrip())
    line += text.count("\n", 0, at)
    at += text.startswith("[", at)
    while True:
        start = SPACE.match(text, at).end()  # type: ignore[union-attr]
        line += text.count("\n", at, start)
        at = start
        if at == len(text) and more():
            continue
        if at == len(text) or text[at] == "]":
            return
        try:
            values, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            is_short = isinstance(error, json.JSONDecodeError) and (
                error.msg.startswith("Unterminated") or error.pos >= len(text) - ENDED_TOO_EARLY
            )
            if is_short and len(text) - at < limits.MAX_ROW_BYTES and more():
                continue
            following = NEXT_OBJECT.search(text, at + 1)
            values, end = None, following.end() if following else len(text)
        if isinstance(values, dict) and not ESCAPED.search(text, at, end):
            yield line, _mended(values, skipped, name, line) if "\\u" in text[at:end] else values
        elif values is None or not isinstance(values, dict):
            skipped.add("invalid_json", name, line)
        else:
            skipped.add("invalid_utf8", name, line)
        line += text.count("\n", at, end)
        at = end


def _lists_within(values: dict[Any, Any], columns: Sequence[str]) -> list[list[dict[Any, Any]]]:
    """Return the lists of rows that an object holds."""
    return [
        value
        for value in values.values()
        if isinstance(value, list)
        and value
        and all(isinstance(item, dict) for item in value)
        and (not columns or _has_any(value[0], columns))
    ]


def _columns_of(values: dict[Any, Any]) -> list[dict[Any, Any]]:
    """Return the rows of an object that holds a table as pandas writes it, by columns or as ``columns`` and ``data``.

    >>> _columns_of({"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}})
    [{'text': 'a', 'label': 1}, {'text': 'b', 'label': 0}]
    """
    if isinstance(names := values.get("columns"), list) and isinstance(data := values.get("data"), list):
        return [dict(zip(names, row)) for row in data if isinstance(row, list)]  # noqa: B905  (a short row lacks columns)
    parts = [list(part.items()) if isinstance(part, dict) else [] for part in values.values()]
    indices = [[index for index, _ in part] for part in parts]
    if not parts or not parts[0] or any(one != indices[0] for one in indices) or not str(indices[0][0]).isdigit():
        return []
    return [dict(zip(values, (part[row][1] for part in parts), strict=True)) for row in range(len(parts[0]))]


def _has_any(values: dict[Any, Any], columns: Sequence[str]) -> bool:
    return any(column_of(values, column) is not None for column in columns)


def _parsed(line: str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    try:
        return json.loads(line, object_pairs_hook=object_pairs_hook)
    except (ValueError, RecursionError):
        return None


def _mended(values: dict[Any, Any], skipped: Skipped, name: str, number: int) -> dict[Any, Any]:
    """Return an object with U+FFFD in place of half letters, which are counted."""
    if not SURROGATE.search(json.dumps(values, ensure_ascii=False)):
        return values
    skipped.add("replaced_letters", name, number)
    mended: dict[Any, Any] = without_surrogates(values)
    return mended


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("two values of one name")
    return values
