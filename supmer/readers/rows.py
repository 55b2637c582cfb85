"""Rows of one file of any kind, by column."""

from __future__ import annotations

import csv
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from supmer.config.corpus import Quoting
from supmer.errors import setting_error
from supmer.readers.column_rows import column_rows, columns_of, is_text, read_schema
from supmer.readers.csv_rows import Table
from supmer.readers.files import InputFile
from supmer.readers.json_rows import json_rows
from supmer.readers.skipped import Skipped
from supmer.readers.streams import Lines
from supmer.readers.values import Row

READ_ERRORS = (
    *(OSError, EOFError, MemoryError, UnicodeError, csv.Error, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    *(NotImplementedError, RuntimeError, pa.ArrowException),
)
"""What damaged content raises; a damaged length may also ask for more memory than there is. (zipfile raises RuntimeError for
a password, NotImplementedError for an unknown compression.)"""


@dataclass(frozen=True)
class ReadOptions:
    """How files are read, where the files themselves do not say it; None: found from the file."""

    encoding: str | None = None
    delimiter: str | None = None
    quoting: Quoting | None = None


def read_rows(
    file: InputFile, options: ReadOptions, columns: Sequence[str], required: str | None, skipped: Skipped
) -> Iterator[Row]:
    """Yield the rows of a JSON, CSV, Parquet or Arrow file with the named columns (none named: all).

    What cannot be used is counted in `skipped`, as are a table without the `required` column or with two of a name.

    Raises:
        one of READ_ERRORS: the file breaks off here.
    """
    file = _of_rows(file, options)
    if file.format == "jsonl":
        yield from json_rows(Lines(file, options.encoding, skipped), columns, skipped)
        return
    table = _csv_table(file, options, columns, skipped) if file.format == "csv" else None
    if table is not None and not table.header:
        return
    if table is not None:
        skipped.add_read_as(table.how, 1, [file.name])
        names = there = table.header
    else:
        schema = read_schema(file)
        names, there = schema.names, [*columns_of(schema)]
    if any(names.count(name) > 1 for name in columns or names):
        skipped.add("repeated_columns", file.name)
    elif required is not None and required not in there:
        skipped.add("missing_columns", file.name)
    elif table is not None:
        places = {name: place for place, name in enumerate(names) if name in columns or not columns}
        for row, (line, fields) in enumerate(table):
            yield row, line, {name: fields[place] for name, place in places.items()}
    else:
        for row, values in column_rows(file, columns, options.encoding, skipped):
            yield row, row + 1, values


def column_names(file: InputFile, options: ReadOptions, columns: Sequence[str]) -> list[str] | None:
    """Return the names of all columns of a table; those of `columns` that lie within structs, too. None: objects have each
    their own.

    Raises:
        one of READ_ERRORS: the file cannot be read.
    """
    file = _of_rows(file, options)
    if file.format == "csv":
        return _csv_table(file, options, columns, Skipped()).header
    if file.format == "jsonl":
        return None
    schema = read_schema(file)
    return [*schema.names, *(name for name in columns if name not in schema.names and name in columns_of(schema))]


def _of_rows(file: InputFile, options: ReadOptions) -> InputFile:
    """Return a file whose name says plain text as the file of rows that it seems to be."""
    if file.format != "text":
        return file
    first = next((line for line in Lines(file, options.encoding, Skipped()) if not line.isspace()), "")
    return replace(file, format="jsonl" if first.lstrip()[:1] in ("{", "[") else "csv")


def check_columns(file: InputFile, options: ReadOptions, column: str, setting: str) -> str:
    """Return in words how a CSV file is written; nothing for files of other kinds, and for what cannot be opened.

    Raises:
        UserError: the file has no text column of this name, or several; the message names `setting`.
    """
    how, kinds = "", {}
    try:
        if file.format == "csv":
            table = _csv_table(file, options, [column], Skipped())
            names, how = table.header, table.how
            if not names:  # a file with nothing in it is no fault
                return how
        elif file.format in ("parquet", "arrow"):
            schema = read_schema(file)
            names, kinds = schema.names, {name: kind for name, (_, kind) in columns_of(schema).items()}
        else:
            return ""
    except READ_ERRORS:
        return ""
    if names.count(column) > 1:
        raise setting_error(setting, column, f"{file.path} has {names.count(column)} columns of this name, must have one")
    if column in kinds and not is_text(kinds[column]):
        texts = ", ".join(name for name, kind in kinds.items() if is_text(kind))
        allowed = f"is of type {kinds[column]} in {file.path}, must be one of those with text: {texts}"
        raise setting_error(setting, column, allowed)
    if column not in (kinds or names):
        there = [name for name, kind in kinds.items() if not pa.types.is_struct(kind)] or names
        found = f" ({how})" if how else ""
        raise setting_error(setting, column, f"{file.path} has no such column, only {', '.join(there)}{found}")
    return how


def _csv_table(file: InputFile, options: ReadOptions, columns: Sequence[str], skipped: Skipped) -> Table:
    return Table(Lines(file, options.encoding, skipped), columns, options.delimiter, options.quoting, skipped)
