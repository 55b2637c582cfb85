"""Rows of single files as (document id, text); what cannot be used is counted by reason and skipped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from supmer import s3, storage
from supmer.config import CorpusConfig
from supmer.errors import one_line
from supmer.readers import skipped as limits
from supmer.readers.files import InputFile, escaped
from supmer.readers.rows import READ_ERRORS, ReadOptions, read_rows
from supmer.readers.skipped import Skipped
from supmer.readers.streams import Lines
from supmer.readers.values import column_of, text_of

FEW_LINES = 3
"""Of a file in another encoding more lines than these are invalid: then the log says how to name the encoding."""

logger = logging.getLogger(__name__)

Record = tuple[str, str]


def read_options(config: CorpusConfig) -> ReadOptions:
    return ReadOptions(config.encoding, config.delimiter, config.quoting)


def read_records(file: InputFile, config: CorpusConfig, skipped: Skipped) -> Iterator[Record]:
    """Yield (document id, text) of every usable row, adding to `skipped` by the reasons of SKIP_REASONS.

    A file that breaks off (a truncated archive, a file that has vanished) gives the rows before the break.

    Raises:
        StorageError: the service that holds the file failed: which rows are read must not depend on that.
    """
    try:
        if file.format == "text":
            yield from usable_records(_text_rows(file, config, skipped), file.name, skipped)
            return
        text, own = config.text_column, config.id_column
        columns = [text] if own is None else [text, own]
        rows = (
            (
                document_id(file.name, row, None if own is None else column_of(values, own)),
                line,
                values[text] if text in values else column_of(values, text),
            )
            for row, line, values in read_rows(file, read_options(config), columns, text, skipped)
        )
        yield from usable_records(rows, file.name, skipped)
    except READ_ERRORS as error:
        if isinstance(error, OSError) and s3.is_from_service(error):
            raise storage.StorageError(f"{file.path}: cannot be read: {storage.reason(error)}") from error
        skipped.add("broken_files", file.name)
        logger.warning("%s breaks off: %s", escaped(file.path), one_line(error)[:200])


def usable_records(rows: Iterable[tuple[str, int, Any]], file: str, skipped: Skipped) -> Iterator[Record]:
    """Yield (document id, text) of the rows (document id, line, value) that hold more than white space.

    Strings lose NUL characters, lists of strings are joined; other values are counted.
    """
    for name, line, value in rows:
        text = value if isinstance(value, str) else text_of(value)
        if text is None:
            skipped.add("missing_text", file, line)
            continue
        text = text.replace("\x00", "").strip()
        if text:
            yield name, text
        else:
            skipped.add("empty_text", file, line)


def document_id(source: str, row: int, value: object) -> str:
    """Return a row's own id, or else one made of where it comes from."""
    return f"{source}#{row}" if value is None else str(value)


def _text_rows(file: InputFile, config: CorpusConfig, skipped: Skipped) -> Iterator[tuple[str, int, Any]]:
    lines = Lines(file, config.encoding, skipped)
    kept: list[str] = []
    size, name, is_by_line = 0, file.name, config.text_document == "line"
    for line in lines:
        if not lines.is_valid:
            skipped.add("invalid_utf8", name, lines.number)
        elif is_by_line:
            number = lines.number
            yield f"{name}#{number - 1}", number, line
        else:
            size += len(line)
            if size > limits.MAX_ROW_BYTES:
                skipped.add("too_long", file.name)
                return
            kept.append(line)
    if config.text_document == "file":
        skipped["text_lines"] += lines.number
    if lines.num_invalid > FEW_LINES:
        share = lines.num_invalid / lines.number
        logger.warning(
            "%s: %d of %d lines (%.1f%%) are not valid %s: corpus.encoding= names another encoding (cp1252, gbk, ...)",
            *(file.path, lines.num_invalid, lines.number, 100 * share, config.encoding or "UTF-8"),
        )
    if config.text_document == "file":
        yield file.name, 1, "".join(kept)
