"""Rows of single files as (document id, text); what cannot be used is counted by reason and skipped."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from supmer import s3, storage
from supmer.config import CorpusConfig
from supmer.corpus.files import CorpusFile
from supmer.errors import UserError

MAX_ROW_BYTES = 64 << 20
"""A line or a plain-text document beyond this size is skipped: one row must not decide how much memory a worker needs."""

SKIP_REASONS = {
    "broken_files": "files that could not be read to their end",
    "missing_columns": "files without the text column",
    "too_long": f"rows or text files of more than {MAX_ROW_BYTES >> 20} MiB",
    "invalid_utf8": "lines that are not UTF-8",
    "invalid_json": "lines that are not JSON objects",
    "missing_text": "rows without a string in the text column",
    "empty_text": "rows with nothing but white space",
    "not_drawn": "documents outside of corpus.shares",
}

Record = tuple[str, str]
_READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowException, MemoryError, UnicodeDecodeError, csv.Error)
"""What damaged content raises; a damaged length may also ask for more memory than there is."""


def read_records(file: CorpusFile, config: CorpusConfig, skipped: Counter[str]) -> Iterator[Record]:
    """Yield (document id, text) of every usable row, adding to `skipped` by the reasons of SKIP_REASONS.

    A file that breaks off (a truncated archive, a file that has vanished) gives the rows before the break.

    Raises:
        StorageError: the service that holds the file failed: which rows are read must not depend on that.
    """
    reader = READERS[file.format]
    try:
        yield from usable_records(reader(file, config, skipped), skipped)
    except _READ_ERRORS as error:
        if isinstance(error, OSError) and s3.is_from_service(error):
            raise storage.StorageError(f"{file.path}: cannot be read: {storage.reason(error)}") from error
        skipped["broken_files"] += 1
        logging.getLogger(__name__).warning("%s breaks off: %s", file.path, " ".join(str(error).split())[:200])


def usable_records(rows: Iterable[tuple[str, Any]], skipped: Counter[str]) -> Iterator[Record]:
    """Yield the rows whose text is a string with more than white space, without NUL characters; count the others."""
    for name, text in rows:
        if not isinstance(text, str):
            skipped["missing_text"] += 1
            continue
        text = text.replace("\x00", "").strip()
        if text:
            yield name, text
        else:
            skipped["empty_text"] += 1


def document_id(source: str, row: int, value: object) -> str:
    """Return a row's own id, or else one made of where it comes from."""
    return f"{source}#{row}" if value is None else str(value)


def check_parquet_column(file: CorpusFile, column: str) -> None:
    """Raise UserError if a readable Parquet file lacks the text column."""
    try:
        with _open(file) as stream:
            names = pq.read_schema(stream).names
    except _READ_ERRORS:
        return
    if column not in names:
        raise UserError(f"corpus.text_column={column}: {file.path} has no such column, only {', '.join(names)}")


def _text_rows(file: CorpusFile, config: CorpusConfig, skipped: Counter[str]) -> Iterator[tuple[str, Any]]:
    lines = _utf8_lines(file, skipped)
    if config.text_document == "line":
        for row, line in lines:
            yield f"{file.name}#{row}", line
        return
    kept: list[str] = []
    size = 0
    for _, line in lines:
        size += len(line)
        if size > MAX_ROW_BYTES:
            skipped["too_long"] += 1
            return
        kept.append(line)
    yield file.name, "".join(kept)


def json_objects(file: CorpusFile, skipped: Counter[str]) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Yield (line number, object) of the lines of a JSONL file; others are counted in `skipped`."""
    for row, line in _utf8_lines(file, skipped):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            values = None
        if not isinstance(values, dict):
            skipped["invalid_json"] += 1
            continue
        yield row, values


def _jsonl_rows(file: CorpusFile, config: CorpusConfig, skipped: Counter[str]) -> Iterator[tuple[str, Any]]:
    for row, values in json_objects(file, skipped):
        yield document_id(file.name, row, values.get(config.id_column)), values.get(config.text_column)


def _csv_rows(file: CorpusFile, config: CorpusConfig, skipped: Counter[str]) -> Iterator[tuple[str, Any]]:
    """Rows under a header; a .tsv has tabs. A quote that is never closed ends the file at MAX_ROW_BYTES."""
    csv.field_size_limit(MAX_ROW_BYTES)
    lines = (line.replace("\x00", "") for _, line in _utf8_lines(file, skipped))
    rows = csv.DictReader(lines, delimiter="\t" if ".tsv" in file.path.lower() else ",")
    if config.text_column not in (rows.fieldnames or ()):
        skipped["missing_columns"] += 1
        return
    for row, values in enumerate(rows):
        yield document_id(file.name, row, values.get(config.id_column)), values[config.text_column]


def _arrow_rows(file: CorpusFile, config: CorpusConfig, skipped: Counter[str]) -> Iterator[tuple[str, Any]]:
    with _open(file) as stream, ipc.open_stream(stream) as batches:
        if config.text_column not in batches.schema.names:
            skipped["missing_columns"] += 1
            return
        columns = [name for name in (config.text_column, config.id_column) if name in batches.schema.names]
        row = 0
        for batch in batches:
            batch.validate(full=True)  # wrong offsets would otherwise be followed to any place in memory
            for values in batch.select(columns).to_pylist():
                yield document_id(file.name, row, values.get(config.id_column)), values[config.text_column]
                row += 1


def _parquet_rows(file: CorpusFile, config: CorpusConfig, skipped: Counter[str]) -> Iterator[tuple[str, Any]]:
    with _open(file) as stream:
        table = pq.ParquetFile(stream)
        if config.text_column not in table.schema_arrow.names:
            skipped["missing_columns"] += 1
            return
        columns = [name for name in (config.text_column, config.id_column) if name in table.schema_arrow.names]
        row = 0
        for batch in table.iter_batches(batch_size=256, columns=columns):
            for values in batch.to_pylist():
                yield document_id(file.name, row, values.get(config.id_column)), values[config.text_column]
                row += 1


READERS = {"text": _text_rows, "jsonl": _jsonl_rows, "csv": _csv_rows, "parquet": _parquet_rows, "arrow": _arrow_rows}


def _utf8_lines(file: CorpusFile, skipped: Counter[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number, line with its end) of the lines that are UTF-8 and not too long."""
    with _open_decompressed(file) as stream:
        row = -1
        while line := stream.readline(MAX_ROW_BYTES):
            row += 1
            if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
                skipped["too_long"] += 1
                _skip_line(stream)
                continue
            try:
                text = line.decode("utf-8-sig" if row == 0 else "utf-8")
            except UnicodeDecodeError:
                skipped["invalid_utf8"] += 1
                continue
            yield row, text


def _skip_line(stream: BinaryIO) -> None:
    while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass


def _open(file: CorpusFile) -> Any:
    filesystem, _ = storage.resolve(file.source)
    return filesystem.open_input_file(file.path)


def _open_decompressed(file: CorpusFile) -> BinaryIO:
    """Open for reading lines; gzip and bz2 by the standard library, which hands out all data before a truncation."""
    raw = _open(file)
    if file.path.endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if file.path.endswith(".bz2"):
        return cast(BinaryIO, bz2.BZ2File(raw))
    if file.path.endswith(".zst"):
        raw = pa.CompressedInputStream(raw, "zstd")
    return io.BufferedReader(raw, 1 << 20)
